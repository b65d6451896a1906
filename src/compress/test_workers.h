// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// For tests and benchmarks only: threads of their own, with the best kernels of the processor.
#pragma once

#include "compress/workers.h"
#include "os/cpu_features.h"

namespace winnow::compress::testing {

inline const kernels::Kernels& best_kernels() {
  return kernels::select_kernels("", os::CpuFeatures::detect());
}

class OwnWorkers {
 public:
  explicit OwnWorkers(unsigned threads) : pool_(threads) {}

  operator Workers() { return {pool_, best_kernels()}; }
  operator os::ThreadPool&() { return pool_; }

 private:
  os::ThreadPool pool_;
};

}  // namespace winnow::compress::testing

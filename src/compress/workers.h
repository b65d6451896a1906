// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What quantises: threads, and the kernels of an ISA.
#pragma once

#include <cstddef>
#include <utility>

#include "kernels/kernels.h"
#include "os/thread_pool.h"

namespace winnow::compress {

/// Both borrowed, and free while they are lent. To be passed by value or const reference.
class Workers {
 public:
  Workers(os::ThreadPool& pool, const kernels::Kernels& kernels)
      : pool_(&pool), kernels_(&kernels) {}

  os::ThreadPool& pool() const { return *pool_; }
  const kernels::Kernels& kernels() const { return *kernels_; }
  /// As os::ThreadPool::run.
  template <typename Body>
  void run(std::size_t count, Body&& body) const {
    pool_->run(count, std::forward<Body>(body));
  }

 private:
  os::ThreadPool* pool_;
  const kernels::Kernels* kernels_;
};

}  // namespace winnow::compress

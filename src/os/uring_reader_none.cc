// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// For builds without liburing: threads read.
#include "os/read_queue.h"

namespace winnow::os {

std::unique_ptr<AsyncReader> make_uring_reader(
    std::vector<std::unique_ptr<ReadSource>>& /*sources*/, const ReaderOptions& /*options*/) {
  return nullptr;
}

}  // namespace winnow::os

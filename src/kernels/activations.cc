// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "kernels/activations.h"

#include "base/error.h"

namespace winnow::kernels {

void ActivationBuffer::resize(std::size_t tokens, std::size_t cols) {
  WINNOW_CHECK(cols % kActivationBlock == 0);
  tokens_ = tokens;
  cols_ = cols;
  if (codes_.size() < tokens * cols) {
    codes_.resize(tokens * cols);
    scales_.resize(tokens * (cols / kActivationBlock));
    sums_.resize(tokens * (cols / kActivationSumGroup));
  }
}

}  // namespace winnow::kernels

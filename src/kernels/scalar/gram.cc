// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Reference for Gram matrices of f32 rows.
#include <algorithm>

#include "kernels/kernels.h"

namespace winnow::kernels::scalar {

void add_gram(const float* const* rows, const float* weights, std::size_t count, std::size_t begin,
              std::size_t end, double* sums) noexcept {
  constexpr std::size_t kColumns = 64;
  for (std::size_t i = begin; i < end; ++i) {
    for (std::size_t j0 = 0; j0 <= i; j0 += kColumns) {
      const std::size_t columns = std::min(kColumns, i + 1 - j0);
      float products[kColumns] = {};
      for (std::size_t t = 0; t < count; ++t) {
        const float left = (weights == nullptr ? 1.0F : weights[t]) * rows[t][i];
        for (std::size_t j = 0; j < columns; ++j) products[j] += left * rows[t][j0 + j];
      }
      for (std::size_t j = 0; j < columns; ++j) sums[i * (i + 1) / 2 + j0 + j] += products[j];
    }
  }
}

}  // namespace winnow::kernels::scalar

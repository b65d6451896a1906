// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/hadamard.h"

#include <cmath>

#include "base/error.h"

namespace winnow::compress {
namespace {

/// log2(block) sweeps of sums and differences of elements 1, 2, 4, ... apart.
template <typename T>
void transform(std::span<T> x) {
  const std::size_t block = hadamard_block(x.size());
  for (std::size_t half = 1; half < block; half *= 2) {
    for (std::size_t first = 0; first < x.size(); first += 2 * half) {
      for (std::size_t i = first; i < first + half; ++i) {
        const T sum = x[i] + x[i + half];
        x[i + half] = x[i] - x[i + half];
        x[i] = sum;
      }
    }
  }
  const T scale = static_cast<T>(1 / std::sqrt(static_cast<double>(block)));
  for (T& value : x) value *= scale;
}

}  // namespace

std::size_t hadamard_block(std::size_t size) {
  WINNOW_CHECK(size > 0);
  return size & (~size + 1);
}

void hadamard(std::span<float> x) { transform(x); }
void hadamard(std::span<double> x) { transform(x); }

void hadamard_rows(tensor::MatrixView<float> weights, std::size_t size) {
  WINNOW_CHECK(weights.rows % size == 0);
  std::vector<float> column(size);
  for (std::size_t first = 0; first < weights.rows; first += size) {
    for (std::size_t c = 0; c < weights.cols; ++c) {
      for (std::size_t r = 0; r < size; ++r) column[r] = weights.row(first + r)[c];
      hadamard(std::span(column));
      for (std::size_t r = 0; r < size; ++r) weights.row(first + r)[c] = column[r];
    }
  }
}

}  // namespace winnow::compress

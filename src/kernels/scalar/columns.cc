// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Reference for the f64 sums over rows of f32.
#include <algorithm>
#include <cmath>

#include "kernels/kernels.h"

namespace winnow::kernels::scalar {

void column_squares(const float* const* rows, const double* weights, std::size_t count,
                    std::size_t n, double* squares, double* weighted) noexcept {
  for (std::size_t t = 0; t < count; ++t) {
    for (std::size_t j = 0; j < n; ++j) {
      const double square = double{rows[t][j]} * double{rows[t][j]};
      squares[j] += square;
      weighted[j] += weights[t] * square;
    }
  }
}

void column_values(const float* const* rows, const double* weights, std::size_t count,
                   std::size_t n, double* sums, double* weighted) noexcept {
  for (std::size_t t = 0; t < count; ++t) {
    for (std::size_t j = 0; j < n; ++j) {
      sums[j] += double{rows[t][j]};
      weighted[j] += weights[t] * double{rows[t][j]};
    }
  }
}

void column_magnitudes(const float* const* rows, std::size_t count, std::size_t n, double* squares,
                       double* magnitudes, float* largest) noexcept {
  for (std::size_t t = 0; t < count; ++t) {
    for (std::size_t j = 0; j < n; ++j) {
      const float magnitude = std::fabs(rows[t][j]);
      squares[j] += double{magnitude} * double{magnitude};
      magnitudes[j] += double{magnitude};
      largest[j] = std::max(largest[j], magnitude);
    }
  }
}

void column_products(const float* const* rows, const double* weights, std::size_t count,
                     std::size_t n, double* sums) noexcept {
  for (std::size_t t = 0; t < count; ++t) {
    for (std::size_t j = 0; j < n; ++j) sums[j] += weights[t] * double{rows[t][j]};
  }
}

void wide_dots(const float* a, const float* const* rows, std::size_t count, std::size_t n,
               double* out) noexcept {
  for (std::size_t r = 0; r < count; ++r) {
    double chains[kDotChains] = {};
    const std::size_t whole = n - n % kDotChains;
    for (std::size_t j = 0; j < whole; ++j) {
      chains[j % kDotChains] += double{a[j]} * double{rows[r][j]};
    }
    double sum = 0;
    for (const double chain : chains) sum += chain;
    for (std::size_t j = whole; j < n; ++j) sum += double{a[j]} * double{rows[r][j]};
    out[r] = sum;
  }
}

float largest_magnitude(const float* x, std::size_t n) noexcept {
  float largest = 0;
  for (std::size_t j = 0; j < n; ++j) largest = std::max(largest, std::fabs(x[j]));
  return largest;
}

}  // namespace winnow::kernels::scalar

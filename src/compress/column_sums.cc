// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/column_sums.h"

#include <algorithm>
#include <cmath>

namespace winnow::compress {

void add_squares(std::span<const float> x, double weight, double* __restrict squares,
                 double* __restrict gated) {
  const double weight_square = weight * weight;
  for (std::size_t j = 0; j < x.size(); ++j) {
    const double value = x[j];
    const double square = value * value;
    squares[j] += square;
    gated[j] += weight_square * square;
  }
}

void add_values(std::span<const float> x, double weight, double* __restrict sums,
                double* __restrict gated) {
  const double weight_square = weight * weight;
  for (std::size_t j = 0; j < x.size(); ++j) {
    const double value = x[j];
    sums[j] += value;
    gated[j] += weight_square * value;
  }
}

void add_magnitudes(std::span<const float> x, double* __restrict squares,
                    double* __restrict magnitudes, float* __restrict largest) {
  for (std::size_t j = 0; j < x.size(); ++j) {
    const float magnitude = std::fabs(x[j]);
    const double value = magnitude;
    squares[j] += value * value;
    magnitudes[j] += value;
    largest[j] = largest[j] < magnitude ? magnitude : largest[j];
  }
}

float largest_magnitude(std::span<const float> x) {
  constexpr std::size_t kChains = 16;  // a maximum is the same in any order
  float chains[kChains] = {};
  std::size_t j = 0;
  for (; j + kChains <= x.size(); j += kChains) {
    for (std::size_t c = 0; c < kChains; ++c) {
      const float magnitude = std::fabs(x[j + c]);
      chains[c] = chains[c] < magnitude ? magnitude : chains[c];
    }
  }
  float largest = 0;
  for (const float chain : chains) largest = std::max(largest, chain);
  for (; j < x.size(); ++j) largest = std::max(largest, std::fabs(x[j]));
  return largest;
}

double dot(std::span<const float> a, std::span<const float> b) {
  constexpr std::size_t kChains = 8;
  double chains[kChains] = {};
  std::size_t j = 0;
  for (; j + kChains <= a.size(); j += kChains) {
    for (std::size_t c = 0; c < kChains; ++c) {
      chains[c] += static_cast<double>(a[j + c]) * static_cast<double>(b[j + c]);
    }
  }
  double sum = 0;
  for (const double chain : chains) sum += chain;
  for (; j < a.size(); ++j) sum += static_cast<double>(a[j]) * static_cast<double>(b[j]);
  return sum;
}

void add_scaled(std::span<const double> x, double scale, double* __restrict out) {
  for (std::size_t j = 0; j < x.size(); ++j) out[j] += scale * x[j];
}

}  // namespace winnow::compress

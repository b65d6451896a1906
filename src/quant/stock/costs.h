// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What an error in each weight costs in llama.cpp's searches, and a scale as it is stored.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "quant/stock/search.h"
#include "tensor/half.h"

namespace winnow::quant::stock {

/// Scale of one block, before and after it is stored.
struct StoredScale {
  std::uint16_t bits;
  float value;

  explicit StoredScale(float scale)
      : bits(tensor::float_to_half(scale)), value(tensor::half_to_float(bits)) {}
};

/// Costs of errors from importance: larger weights count more, by the root of their squares and
/// `spread` together.
inline void weigh(const float* x, const float* importance, float spread, std::size_t count,
                  float* w) {
  for (std::size_t j = 0; j < count; ++j) w[j] = importance[j] * std::sqrt(spread + x[j] * x[j]);
}

inline void square(const float* x, std::size_t count, float* w) {
  for (std::size_t j = 0; j < count; ++j) w[j] = x[j] * x[j];
}

inline float sum(const float* w, std::size_t count) {
  float total = 0;
  for (std::size_t j = 0; j < count; ++j) total += w[j];
  return total;
}

inline float mean_square(const float* x, std::size_t count) {
  return sum_of_squares(x, count) / static_cast<float>(count);
}

}  // namespace winnow::quant::stock

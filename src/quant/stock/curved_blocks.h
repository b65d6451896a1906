// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// IQ4_XS and IQ4_NL as llama.cpp makes them: sixteen uneven values.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "quant/block_grid.h"
#include "quant/one_level.h"
#include "quant/stock/costs.h"

namespace winnow::quant::stock {

/// The scale of 32 weights.
inline float curved_scale(const float* x, const float* importance, float spread) {
  float w[kSmallBlock];
  if (importance == nullptr) {
    square(x, kSmallBlock, w);
  } else {
    weigh(x, importance, spread, kSmallBlock, w);
  }
  return fit_curved({x, w, kSmallBlock});
}

/// The nearest values with a scale that is not rounded to what is stored.
inline void code_curved(const float* x, float scale, std::uint8_t* codes) {
  const float inverse = scale != 0 ? 1 / scale : 0.0F;
  for (std::size_t j = 0; j < kSmallBlock; ++j) codes[j] = curved_index(inverse * x[j]);
}

struct Iq4XsBlock {
  static constexpr std::size_t kBlock = kSuperBlock;
  static constexpr std::size_t kCount = kBlock / kSmallBlock;

  static void encode(const float* x, const float* importance, float /*row*/, BlockParameters& out) {
    const float spread = sum_of_squares(x, kBlock) * (2.0F / kBlock);
    float scales[kCount];
    for (std::size_t k = 0; k < kCount; ++k) {
      const std::size_t at = k * kSmallBlock;
      scales[k] = curved_scale(x + at, importance == nullptr ? nullptr : importance + at, spread);
    }
    const float d = -extreme(scales, kCount) / 32;
    const float inverse = d != 0 ? 1 / d : 0.0F;
    out.scale = tensor::float_to_half(d);
    for (std::size_t k = 0; k < kCount; ++k) {
      const int integer = std::clamp(rounded(inverse * scales[k]), -32, 31);
      out.scales[k] = static_cast<std::int8_t>(integer);
      code_curved(x + k * kSmallBlock, d * static_cast<float>(integer),
                  out.codes + k * kSmallBlock);
    }
  }
};

struct Iq4NlBlock {
  static constexpr std::size_t kBlock = kSmallBlock;

  static void encode(const float* x, const float* importance, float /*row*/, BlockParameters& out) {
    const float spread = sum_of_squares(x, kBlock) * (2.0F / kBlock);
    const float scale = curved_scale(x, importance, spread);
    out.scale = tensor::float_to_half(scale);
    code_curved(x, scale, out.codes);
  }
};

}  // namespace winnow::quant::stock

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Encoders of the blocks of 32 weights that hold one f16 scale, with or without an f16 base.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "quant/search.h"

namespace winnow::quant {

/// What an encoder found for one block, before its bits are laid out:
/// w = scale * level(code) (+ base).
struct OneLevelBlock {
  static constexpr std::size_t kSize = 32;
  std::uint16_t scale = 0;  ///< f16 bits
  std::uint16_t base = 0;   ///< f16 bits
  std::uint8_t codes[kSize] = {};
};

/// Of both signs of the scale, the best f16 scale.
template <class Levels>
OneLevelBlock search_symmetric_block(const float* weights, const float* importance) {
  constexpr std::size_t kSize = OneLevelBlock::kSize;
  float x[kSize];
  float w[kSize];
  const BlockUnits units = normalize(weights, importance, kSize, x, w);
  float best_scale = 0;
  OneLevelBlock block;
  if (units.unit > 0) {
    float best_error = std::numeric_limits<float>::infinity();
    const float largest = largest_magnitude(x, kSize);
    for (const float sign : {-1.0F, 1.0F}) {
      Lanes scale = fit_symmetric<Levels>(x, w, kSize, largest, sign).scale;
      for (std::size_t lane = 0; lane < kLanes; ++lane) scale[lane] = units.rounded(scale[lane]);
      const Lanes error = symmetric_sums<Levels>(x, w, kSize, scale).error;
      const std::size_t lane = smallest_lane(error);
      if (error[lane] < best_error) {
        best_error = error[lane];
        best_scale = scale[lane];
      }
    }
    block.scale = units.to_half(best_scale);
  }
  store_codes<Levels>(x, kSize, best_scale, 0.0F, block.codes);
  return block;
}

/// The best f16 scale and base.
template <class Levels>
OneLevelBlock search_affine_block(const float* weights, const float* importance) {
  constexpr std::size_t kSize = OneLevelBlock::kSize;
  float x[kSize];
  float w[kSize];
  const BlockUnits units = normalize(weights, importance, kSize, x, w);
  OneLevelBlock block;
  if (units.unit == 0) return block;
  AffineFit fit = fit_affine<Levels>(x, w, kSize, BaseRange::kAny);
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    fit.scale[lane] = units.rounded(fit.scale[lane]);
    fit.base[lane] = units.rounded(fit.base[lane]);
  }
  const AffineSums sums = affine_sums<Levels>(x, w, kSize, fit.scale, fit.base);
  const std::size_t lane = smallest_lane(sums.error);
  block.scale = units.to_half(fit.scale[lane]);
  block.base = units.to_half(fit.base[lane]);
  store_codes<Levels>(x, kSize, fit.scale[lane], fit.base[lane], block.codes);
  return block;
}

/// `Codec::encode` of a layout with one scale: Layout::{kBytes, Levels, pack(block, bytes)}.
template <class Layout, OneLevelBlock (*search)(const float*, const float*)>
void encode_one_level(const float* weights, std::size_t num_blocks, const float* importance,
                      std::byte* out) noexcept {
  constexpr std::size_t kSize = OneLevelBlock::kSize;
  for (std::size_t b = 0; b < num_blocks; ++b) {
    const float* block_importance = importance == nullptr ? nullptr : importance + b * kSize;
    Layout::pack(search(weights + b * kSize, block_importance), out + b * Layout::kBytes);
  }
}

}  // namespace winnow::quant

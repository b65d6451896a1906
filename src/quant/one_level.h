// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Encoders of the blocks of 32 weights that hold one f16 scale, with or without an f16 base.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "quant/block_grid_of.h"
#include "quant/search.h"

namespace winnow::quant {

constexpr std::size_t kSmallBlock = 32;

/// These layouts store the base, which is the minimum negated.
inline std::uint16_t negated_half(std::uint16_t half) {
  constexpr std::uint16_t kSign = 0x8000;
  return half ^ kSign;
}

/// Of both signs of the scale, the best f16 scale.
template <class Levels>
BlockParameters search_symmetric_block(const float* weights, const float* importance) {
  constexpr std::size_t kSize = kSmallBlock;
  float x[kSize];
  float w[kSize];
  const BlockUnits units = normalize(weights, importance, kSize, x, w);
  float best_scale = 0;
  BlockParameters block;
  block.scales[0] = 1;
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
BlockParameters search_affine_block(const float* weights, const float* importance) {
  constexpr std::size_t kSize = kSmallBlock;
  float x[kSize];
  float w[kSize];
  const BlockUnits units = normalize(weights, importance, kSize, x, w);
  BlockParameters block;
  block.scales[0] = block.mins[0] = 1;
  block.min_scale = negated_half(0);
  if (units.unit == 0) return block;
  AffineFit fit = fit_affine<Levels>(x, w, kSize, BaseRange::kAny);
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    fit.scale[lane] = units.rounded(fit.scale[lane]);
    fit.base[lane] = units.rounded(fit.base[lane]);
  }
  const AffineSums sums = affine_sums<Levels>(x, w, kSize, fit.scale, fit.base);
  const std::size_t lane = smallest_lane(sums.error);
  block.scale = units.to_half(fit.scale[lane]);
  block.min_scale = negated_half(units.to_half(fit.base[lane]));
  store_codes<Levels>(x, kSize, fit.scale[lane], fit.base[lane], block.codes);
  return block;
}

}  // namespace winnow::quant

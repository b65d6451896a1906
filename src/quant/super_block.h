// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The super-blocks of 256 weights: sub-blocks with small integer scales (and minima)
// that share one f16 scale (and one f16 scale of the minima).
//
// First every sub-block gets its best real-valued scale. Then, for a few shared scales: each
// sub-block tries the integers around its real-valued scale with its weights coded anew, the exact
// error deciding; the shared scales are refitted by least squares; repeat. The best of all wins.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/block_grid_of.h"
#include "quant/search.h"

namespace winnow::quant {

/// The input of a super-block search, in block units.
struct SuperBlockInput {
  alignas(16) float x[kSuperBlock];
  alignas(16) float w[kSuperBlock];
  BlockUnits units;

  SuperBlockInput(const float* weights, const float* importance)
      : units(normalize(weights, importance, kSuperBlock, x, w)) {}
};

}  // namespace winnow::quant

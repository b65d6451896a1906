// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "quant/block_grid.h"

#include <algorithm>

#include "base/error.h"

namespace winnow::quant {

LevelRounder::LevelRounder(const BlockGrid& grid)
    : levels_(grid.levels),
      uniform_(grid.is_uniform()),
      low_(grid.levels.front()),
      high_(grid.levels.back()) {
  if (uniform_) return;
  WINNOW_CHECK(grid.levels.size() <= kMostMiddles + 1);
  for (; count_ + 1 < grid.levels.size(); ++count_) {
    middles_[count_] = 0.5F * static_cast<float>(grid.levels[count_] + grid.levels[count_ + 1]);
  }
}

std::uint16_t nearest_half(float value) noexcept {
  constexpr float kLargestHalf = 65504.0F;
  return tensor::float_to_half(std::clamp(value, -kLargestHalf, kLargestHalf));
}

}  // namespace winnow::quant

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The values that a code can stand for, before the scale: evenly spaced integers, or the 16 values
// of the IQ4 types. A level is held as a float during the search; an
// object of these types is made once per run of weights.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "quant/lanes.h"

namespace winnow::quant {

/// The integers Low..High, stored as level - Low.
template <int Low, int High>
struct UniformLevels {
  static constexpr std::size_t kCodes = High - Low + 1;
  /// The level that the largest weight of a block meets when nothing is clipped.
  static constexpr float kEdge = static_cast<float>(Low < 0 ? -Low : High);
  /// The usual distance of neighbouring levels.
  static constexpr float kStep = 1.0F;

  Lanes nearest(Lanes v) const { return round_to_even(clamp(v, low, high)); }
  static std::uint8_t stored(float level) {
    return static_cast<std::uint8_t>(static_cast<int>(level) - Low);
  }
  static constexpr std::int8_t code(std::uint8_t stored) {
    return static_cast<std::int8_t>(stored + Low);
  }

  Lanes low = hidden_splat(static_cast<float>(Low));
  Lanes high = hidden_splat(static_cast<float>(High));
};

/// The 16 values of IQ4_NL and IQ4_XS, denser around zero (fixed by the GGUF format), stored as
/// their index.
struct CurvedLevels {
  static constexpr std::size_t kCodes = 16;
  static constexpr float kEdge = 127.0F;
  static constexpr float kStep = 16.0F;
  static constexpr std::array<std::int8_t, 16> kValues = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                          1,    13,   25,  38,  53,  69,  89,  113};

  static Lanes nearest(Lanes v) {
    Lanes level = splat(kValues[0]);
    for (std::size_t i = 1; i < kValues.size(); ++i) {
      const float middle = 0.5F * static_cast<float>(kValues[i - 1] + kValues[i]);
      const auto gap = static_cast<float>(kValues[i] - kValues[i - 1]);
      level += v > middle ? splat(gap) : splat(0.0F);
    }
    return level;
  }
  static std::uint8_t stored(float level) {
    std::uint8_t index = 0;
    while (static_cast<float>(kValues[index]) < level) ++index;
    return index;
  }
  static constexpr std::int8_t code(std::uint8_t stored) { return kValues[stored]; }
};

}  // namespace winnow::quant

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How llama.cpp's quantisers choose scales, for the blocks beside this file: which candidates they
// try and in which order they add and multiply in f32, since both decide bits of the result.
// Nothing here is better than search.h; it is here to be equal to the other program.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace winnow::quant::stock {

/// Magnitudes below this count as zero.
inline constexpr float kNothing = 1e-15F;

/// Most values that share one scale.
inline constexpr std::size_t kLongestRun = 32;

/// Values that share one scale, and what an error in each costs; both [count], count at most
/// kLongestRun.
struct Run {
  const float* x;
  const float* w;
  std::size_t count;
};

/// The nearest integer, ties to even, for |v| < 2^22. Beyond it, and for NaN, some other number in
/// [-2^22, 2^22), which callers clamp: the addition leaves the integer in the mantissa's lower
/// bits.
inline int rounded(float v) {
  const auto bits = std::bit_cast<std::uint32_t>(v + 0x1.8p23F);
  return static_cast<int>(bits & 0x7fffffU) - 0x400000;
}

/// The integer part as x86 converts it: 0 where it does not fit 32 bits (the lower byte of the
/// "indefinite" integer), which happens for the inverses of subnormal scales.
inline int truncated(float v) { return v >= -0x1p31F && v < 0x1p31F ? static_cast<int>(v) : 0; }

/// sum w x level and sum w level^2: their quotient is the best scale for the levels, and cross^2 /
/// energy what it takes off the error.
struct LevelSums {
  float cross = 0;
  float energy = 0;

  bool gains_over(float gain) const { return energy > 0 && cross * cross > gain * energy; }
  float scale() const { return energy > 0 ? cross / energy : 0.0F; }
};

/// The value of the largest magnitude with its sign, the first on ties.
float extreme(const float* x, std::size_t count);

/// sum x^2, one after the other.
float sum_of_squares(const float* x, std::size_t count);

/// A scale for x = scale * level, levels -edge .. edge - 1, where the extreme value meets level
/// -edge, give or take nine tenths in steps of a tenth; codes are level + edge. 0 and codes of 0
/// when there is nothing to scale.
float fit_signed(const Run& run, int edge, std::uint8_t* codes);

/// The same from one start, improved by at most five passes that move one code at a time.
float refine_signed(const Run& run, int edge, std::uint8_t* codes);

/// The inverse scales to try for x = scale * level - minimum: (top + first + i * step) / range for
/// i = 0 .. steps.
struct MinimumGrid {
  float first;
  float step;
  int steps;
  bool absolute;  ///< errors count by magnitude, not squared
};

/// The one that goes with importances, for all types.
inline constexpr MinimumGrid kWeightedMinima = {-0.9F, 0.05F, 36, /*absolute=*/false};

struct ScaleAndMinimum {
  float scale = 0;
  float minimum = 0;  ///< not negative
};

/// Levels are 0 .. top; codes are levels.
ScaleAndMinimum fit_with_minimum(const Run& run, int top, const MinimumGrid& grid,
                                 std::uint8_t* codes);

/// The scale of x = scale * integer, integers 0 .. top, for the scales or minima of sub-blocks.
float fit_integers(const Run& run, int top, std::uint8_t* integers);

/// A scale for the 16 values of CurvedLevels.
float fit_curved(const Run& run);

/// Index of the CurvedLevels value nearest to v; ties go to the higher, NaN to the last.
std::uint8_t curved_index(float v);

}  // namespace winnow::quant::stock

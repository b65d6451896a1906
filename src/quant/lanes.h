// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Four floats at once, for the encoders: one lane is one candidate of a search. The vector types
// of GCC and Clang, no intrinsics; each operation rounds as its scalar twin, on every CPU.
#pragma once

#include <cstddef>
#include <cstdint>

namespace winnow::quant {

using Lanes = float __attribute__((vector_size(16)));
constexpr std::size_t kLanes = 4;

inline Lanes splat(float value) { return Lanes{value, value, value, value}; }

/// first, first + step, first + 2 step, first + 3 step.
inline Lanes ramp(float first, float step) {
  return Lanes{first, first + step, first + 2 * step, first + 3 * step};
}

inline Lanes clamp(Lanes v, Lanes low, Lanes high) {
  v = v < low ? low : v;
  return v > high ? high : v;
}

inline Lanes clamp(Lanes v, float low, float high) { return clamp(v, splat(low), splat(high)); }

/// splat(value), as a value that the compiler cannot know. GCC 12 makes one maxps of `v < low ? low
/// : v` unless `low` is a constant; then it makes four instructions of it.
inline Lanes hidden_splat(float value) {
  Lanes lanes = splat(value);
  asm("" : "+m"(lanes));
  return lanes;
}

/// Nearest integer, ties to even; |v| < 2^22. SSE2 has no rounding instruction: adding 1.5 * 2^23
/// pushes the fraction out of the mantissa.
inline Lanes round_to_even(Lanes v) {
  const Lanes magic = splat(0x1.8p23F);
  return (v + magic) - magic;
}

/// 1 / v, or 0 where v is too small for a finite inverse.
inline Lanes inverse_or_zero(Lanes v) {
  const Lanes magnitude = v < 0.0F ? -v : v;
  const Lanes safe = magnitude < 0x1p-120F ? splat(1.0F) : v;
  return magnitude < 0x1p-120F ? splat(0.0F) : splat(1.0F) / safe;
}

/// Index of the smallest lane; the lower index on ties.
inline std::size_t smallest_lane(Lanes v) {
  std::size_t best = 0;
  for (std::size_t lane = 1; lane < kLanes; ++lane) {
    if (v[lane] < v[best]) best = lane;
  }
  return best;
}

}  // namespace winnow::quant

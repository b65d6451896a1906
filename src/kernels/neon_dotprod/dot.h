// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Products of codes with the dot product of signed bytes.
#pragma once

#include "kernels/neon_dotprod/vocabulary.h"

WINNOW_BEGIN_TARGET(WINNOW_TARGET_NEON_DOTPROD)
namespace winnow::kernels::neon_dotprod {

/// sum + products of codes 4 l to 4 l + 3 in lane l, both in [-128, 127].
WINNOW_INLINE Ints dot_quads(Ints sum, int8x16_t w, int8x16_t x) {
#if defined(__clang__) && __clang_major__ < 16  // shows the intrinsic to whole files only
  asm("sdot %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(w), "w"(x));
  return sum;
#else
  return vdotq_s32(sum, w, x);
#endif
}
/// Weights in [0, 127].
WINNOW_INLINE Ints add_dot_small(Ints sum, Codes w, Codes x) {
  return dot_quads(sum, vreinterpretq_s8_u8(w), vreinterpretq_s8_u8(x));
}
/// Weights in [-128, 127], nothing raised.
inline constexpr std::int32_t kSignedRaise = 0;
WINNOW_INLINE Codes raise_signed(Codes w) { return w; }
WINNOW_INLINE Ints add_dot_raised(Ints sum, Codes w, Codes x) { return add_dot_small(sum, w, x); }

/// 4 products to a lane, for measuring.
inline constexpr std::size_t kRegisterCodes = 16;
WINNOW_INLINE Ints add_dot_u8i8(Ints sum, Ints x, Ints w) {
  return dot_quads(sum, vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(w));
}

/// From one vector per row to one vector per quad of codes: lane r of rows[d] becomes quad d of
/// row r.
WINNOW_INLINE void transpose_quads(Codes (&rows)[kLanes]) { transpose(rows, rows); }

}  // namespace winnow::kernels::neon_dotprod
WINNOW_END_TARGET

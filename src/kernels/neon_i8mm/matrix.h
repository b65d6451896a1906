// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The words of 64-bit Arm with products of int8 matrices: those of neon_dotprod, and what
// detail/panel_pairs.inl needs. A name that both define means the one defined here.
#pragma once

#include "kernels/neon_dotprod/vocabulary.h"

#ifdef __clang__
#define WINNOW_TARGET_NEON_I8MM "dotprod,i8mm"
#else
#define WINNOW_TARGET_NEON_I8MM WINNOW_TARGET_NEON_DOTPROD "+i8mm"
#endif

WINNOW_BEGIN_TARGET(WINNOW_TARGET_NEON_I8MM)
namespace winnow::kernels::neon_i8mm {

using namespace neon_dotprod;

// Rows (in vectors) and tokens of codes multiplied together: 3 x 4 sums, as many of products, and
// what feeds them are 27 registers of 32.
inline constexpr std::size_t kPanelVectors = 3;
inline constexpr std::size_t kPanelTile = 4;

/// sum + w x^T of w [2 rows, 8] and x [2 tokens, 8]; row-major, codes in [-128, 127].
WINNOW_INLINE Ints matrix_product(Ints sum, int8x16_t w, int8x16_t x) {
#if defined(__clang__) && __clang_major__ < 16  // shows the intrinsic to whole files only
  asm("smmla %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(w), "w"(x));
  return sum;
#else
  return vmmlaq_s32(sum, w, x);
#endif
}
WINNOW_INLINE Ints add_matrix_product(Ints sum, Codes w, Codes x) {
  return matrix_product(sum, vreinterpretq_s8_u8(w), vreinterpretq_s8_u8(x));
}
/// The eight codes at a and the eight at b.
WINNOW_INLINE Codes load_two_halves(const std::int8_t* a, const std::int8_t* b) {
  return vreinterpretq_u8_s8(vcombine_s8(vld1_s8(a), vld1_s8(b)));
}
/// Rows' first halves: of 0 and 1, of 2 and 3; then their second halves.
WINNOW_INLINE void pair_halves(Codes (&rows)[4]) {
  uint64x2_t halves[4];
  for (std::size_t r = 0; r < 4; ++r) halves[r] = vreinterpretq_u64_u8(rows[r]);
  rows[0] = vreinterpretq_u8_u64(vzip1q_u64(halves[0], halves[1]));
  rows[1] = vreinterpretq_u8_u64(vzip1q_u64(halves[2], halves[3]));
  rows[2] = vreinterpretq_u8_u64(vzip2q_u64(halves[0], halves[1]));
  rows[3] = vreinterpretq_u8_u64(vzip2q_u64(halves[2], halves[3]));
}
/// The four rows' sums with the first (or second) token, of products with rows 0 and 1, 2 and 3.
WINNOW_INLINE Ints first_token(Ints rows01, Ints rows23) { return vuzp1q_s32(rows01, rows23); }
WINNOW_INLINE Ints second_token(Ints rows01, Ints rows23) { return vuzp2q_s32(rows01, rows23); }

/// 8 products to a lane, for measuring.
inline constexpr std::size_t kRegisterCodes = 32;
WINNOW_INLINE Ints add_dot_u8i8(Ints sum, Ints x, Ints w) {
  return matrix_product(sum, vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(w));
}

}  // namespace winnow::kernels::neon_i8mm
WINNOW_END_TARGET

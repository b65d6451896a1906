// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Products of codes without VNNI: pairs of products are added in 16 bits first.
#pragma once

#include "kernels/avx2/vocabulary.h"

WINNOW_BEGIN_TARGET(WINNOW_TARGET_AVX2)
namespace winnow::kernels::avx2 {

/// sum + products of codes 4 l to 4 l + 3 in lane l; weights in [0, 127], so that a pair of
/// products stays below 2^15.
WINNOW_INLINE Ints add_dot_small(Ints sum, Codes w, Codes x) {
  const Ints pairs = _mm256_maddubs_epi16(w, x);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
/// The same for codes in [-128, 127], nothing raised: magnitudes times activations that take over
/// the signs; |w| <= 128 and |x| <= 127 keep a pair below 2^15.
inline constexpr std::int32_t kSignedRaise = 0;
WINNOW_INLINE Codes raise_signed(Codes w) { return w; }
WINNOW_INLINE Ints add_dot_raised(Ints sum, Codes w, Codes x) {
  const Ints pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

/// 4 products to a lane: sum + unsigned x times signed w; their pairs may saturate, so this serves
/// to measure only.
inline constexpr std::size_t kRegisterCodes = 32;
WINNOW_INLINE Ints add_dot_u8i8(Ints sum, Ints x, Ints w) {
  return add(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)));
}

}  // namespace winnow::kernels::avx2
WINNOW_END_TARGET

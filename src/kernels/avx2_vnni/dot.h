// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The words of AVX2 with the VNNI of 256 bits: those of AVX2, but for the products of codes, which
// one instruction multiplies and adds without a step of 16 bits. avx2/dot.h, which defines the same
// words, must not be included beside this.
#pragma once

#include "kernels/avx2/vocabulary.h"

#define WINNOW_TARGET_AVX2_VNNI WINNOW_TARGET_AVX2 ",avxvnni"

WINNOW_BEGIN_TARGET(WINNOW_TARGET_AVX2_VNNI)
namespace winnow::kernels::avx2_vnni {

using namespace avx2;

/// sum + products of codes 4 l to 4 l + 3 in lane l; weights in [0, 127].
WINNOW_INLINE Ints add_dot_small(Ints sum, Codes w, Codes x) {
  return _mm256_dpbusd_avx_epi32(sum, w, x);
}
/// The same for raised weights: what `raise_signed` makes of codes in [-128, 127]. The instruction
/// multiplies unsigned by signed bytes, so that every product is too large by kSignedRaise * x.
inline constexpr std::int32_t kSignedRaise = 128;
WINNOW_INLINE Codes raise_signed(Codes w) {
  return _mm256_xor_si256(w, _mm256_set1_epi8(static_cast<char>(0x80)));
}
WINNOW_INLINE Ints add_dot_raised(Ints sum, Codes w, Codes x) {
  return _mm256_dpbusd_avx_epi32(sum, w, x);
}

/// 4 products to a lane: sum + unsigned x times signed w.
inline constexpr std::size_t kRegisterCodes = 32;
WINNOW_INLINE Ints add_dot_u8i8(Ints sum, Ints x, Ints w) {
  return _mm256_dpbusd_avx_epi32(sum, x, w);
}

}  // namespace winnow::kernels::avx2_vnni
WINNOW_END_TARGET

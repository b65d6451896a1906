// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The words of AVX-512 that only detail/attention.inl uses.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/avx512_vnni/vocabulary.h"

WINNOW_BEGIN_TARGET(WINNOW_TARGET_AVX512_VNNI)
namespace winnow::kernels::avx512_vnni {

/// Sums that a block of queries may hold in registers: with 4 queries' elements and one of a key or
/// value, 21 of 32.
inline constexpr std::size_t kAttentionSums = 16;

/// kLanes int8 codes, one to a lane.
WINNOW_INLINE Ints widen_codes(const std::byte* p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
/// kLanes floats as f16, to nearest even.
WINNOW_INLINE void store_f16(std::byte* p, Floats v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
/// One f16 on all lanes.
WINNOW_INLINE Floats broadcast_f16(const std::byte* p) {
  return _mm512_cvtph_ps(_mm256_set1_epi16(*reinterpret_cast<const std::int16_t*>(p)));
}

}  // namespace winnow::kernels::avx512_vnni
WINNOW_END_TARGET

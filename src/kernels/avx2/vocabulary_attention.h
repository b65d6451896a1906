// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The words of AVX2 that only detail/attention.inl uses.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/avx2/vocabulary.h"

WINNOW_BEGIN_TARGET(WINNOW_TARGET_AVX2)
namespace winnow::kernels::avx2 {

/// Sums that a block of queries may hold in registers: with 4 queries' elements and one of a key or
/// value, 13 of 16.
inline constexpr std::size_t kAttentionSums = 8;

/// kLanes int8 codes, one to a lane.
WINNOW_INLINE Ints widen_codes(const std::byte* p) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
/// kLanes floats as f16, to nearest even.
WINNOW_INLINE void store_f16(std::byte* p, Floats v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
/// One f16 on all lanes.
WINNOW_INLINE Floats broadcast_f16(const std::byte* p) {
  return _mm256_cvtph_ps(_mm_set1_epi16(*reinterpret_cast<const std::int16_t*>(p)));
}

}  // namespace winnow::kernels::avx2
WINNOW_END_TARGET

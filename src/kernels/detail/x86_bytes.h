// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Words on 16 bytes that all x86 vocabularies with AVX2 share: the small integer scales of
// super-blocks.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/detail/target.h"

WINNOW_BEGIN_TARGET("avx2,fma,f16c,bmi2")
namespace winnow::kernels::x86 {

using Bytes16 = __m128i;

WINNOW_INLINE Bytes16 load_bytes16(const std::byte* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
WINNOW_INLINE Bytes16 make_bytes16(std::uint64_t low, std::uint64_t high) {
  return _mm_set_epi64x(static_cast<std::int64_t>(high), static_cast<std::int64_t>(low));
}
/// From one row's 16 bytes per register to four groups per register: byte 4 i + e of quads[k] is
/// byte 4 k + i of rows[e].
WINNOW_INLINE void interleave_rows(const Bytes16 (&rows)[4], Bytes16 (&quads)[4]) {
  const Bytes16 a = _mm_unpacklo_epi8(rows[0], rows[1]);
  const Bytes16 b = _mm_unpacklo_epi8(rows[2], rows[3]);
  const Bytes16 c = _mm_unpackhi_epi8(rows[0], rows[1]);
  const Bytes16 d = _mm_unpackhi_epi8(rows[2], rows[3]);
  quads[0] = _mm_unpacklo_epi16(a, b);
  quads[1] = _mm_unpackhi_epi16(a, b);
  quads[2] = _mm_unpacklo_epi16(c, d);
  quads[3] = _mm_unpackhi_epi16(c, d);
}
/// Word i of the 16 bytes at rows[e] becomes word e of columns[i]; words of 4 bytes.
WINNOW_INLINE void load_columns(const std::byte* const (&rows)[4], Bytes16 (&columns)[4]) {
  const Bytes16 a = load_bytes16(rows[0]);
  const Bytes16 b = load_bytes16(rows[1]);
  const Bytes16 c = load_bytes16(rows[2]);
  const Bytes16 d = load_bytes16(rows[3]);
  const Bytes16 ab = _mm_unpacklo_epi32(a, b);
  const Bytes16 cd = _mm_unpacklo_epi32(c, d);
  const Bytes16 ab_high = _mm_unpackhi_epi32(a, b);
  const Bytes16 cd_high = _mm_unpackhi_epi32(c, d);
  columns[0] = _mm_unpacklo_epi64(ab, cd);
  columns[1] = _mm_unpackhi_epi64(ab, cd);
  columns[2] = _mm_unpacklo_epi64(ab_high, cd_high);
  columns[3] = _mm_unpackhi_epi64(ab_high, cd_high);
}
/// Byte 4 e + i becomes byte 4 i + e.
WINNOW_INLINE Bytes16 transpose_bytes(Bytes16 v) {
  return _mm_shuffle_epi8(v, _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
}
/// Both halves of four pairs of 16-bit words: the first of each pair, then the second of each.
WINNOW_INLINE Bytes16 split_pairs(Bytes16 v) {
  return _mm_shuffle_epi8(v, _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
}
/// Bits of every byte moved right by kShift (left where negative) and cut to kMask, which leaves
/// only bits that stay in their byte.
template <int kShift, unsigned kMask>
WINNOW_INLINE Bytes16 small_field(Bytes16 v) {
  if constexpr (kShift > 0) v = _mm_srli_epi16(v, kShift);
  if constexpr (kShift < 0) v = _mm_slli_epi16(v, -kShift);
  return _mm_and_si128(v, _mm_set1_epi8(kMask));
}
WINNOW_INLINE Bytes16 merge(Bytes16 a, Bytes16 b) { return _mm_or_si128(a, b); }
/// The low bits of `bits` at the set bits of `places`, in order.
WINNOW_INLINE std::uint64_t spread_bits(std::uint64_t bits, std::uint64_t places) {
  return _pdep_u64(bits, places);
}

}  // namespace winnow::kernels::x86
WINNOW_END_TARGET

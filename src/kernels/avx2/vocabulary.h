// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The words of AVX2 with FMA and F16C: 8 floats, 32 codes. The algorithms in detail/*.inl are
// written with them; no other file of this folder holds an intrinsic.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/detail/row_fields.h"
#include "kernels/detail/target.h"
#include "kernels/detail/x86_bytes.h"

#define WINNOW_TARGET_AVX2 "avx2,fma,f16c,bmi2"

WINNOW_BEGIN_TARGET(WINNOW_TARGET_AVX2)
namespace winnow::kernels::avx2 {

using Floats = __m256;
using Ints = __m256i;
inline constexpr std::size_t kLanes = 8;

// Rows and tokens of f32 multiplied together: 3 x 4 sums, three rows and a token are 16 registers.
// 1536 x 576 in BF16 with 2048 tokens on one thread of a Zen 5 server: 98 Gop/s; 2 x 4 gave 88.
inline constexpr std::size_t kTileRows = 3;
inline constexpr std::size_t kTileTokens = 4;

// Rows of a Gram matrix summed together: 6 x 2 vectors of sums, two of columns and one broadcast
// fit 16 registers.
inline constexpr std::size_t kGramRows = 6;

// Rows and vectors of columns of a product of f32 matrices: 4 x 3 sums, three columns and one
// broadcast fit 16 registers.
inline constexpr std::size_t kProductRows = 4;
inline constexpr std::size_t kProductVectors = 3;

// Rows (in vectors) and tokens of codes multiplied together: 2 x 3 sums, as many dot products.
inline constexpr std::size_t kPanelVectors = 2;
inline constexpr std::size_t kPanelTile = 3;
inline constexpr std::size_t kPanelTokens = 12;

// --- loads and stores; *_first touch n < kLanes elements, and other lanes are zero -------------

alignas(32) inline constexpr std::int32_t kFirstLanes[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
WINNOW_INLINE Ints first_lanes(std::size_t n) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kFirstLanes + kLanes - n));
}
WINNOW_INLINE Floats load(const float* p) { return _mm256_loadu_ps(p); }
WINNOW_INLINE Floats load_first(const float* p, std::size_t n) {
  return _mm256_maskload_ps(p, first_lanes(n));
}
WINNOW_INLINE Floats load_first_or(const float* p, std::size_t n, Floats other) {
  return _mm256_blendv_ps(other, load_first(p, n), _mm256_castsi256_ps(first_lanes(n)));
}
WINNOW_INLINE void store(float* p, Floats v) { _mm256_storeu_ps(p, v); }
WINNOW_INLINE void store_first(float* p, Floats v, std::size_t n) {
  _mm256_maskstore_ps(p, first_lanes(n), v);
}
WINNOW_INLINE Floats load_f16(const std::byte* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
WINNOW_INLINE Floats load_bf16(const std::byte* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
/// v in a register. g++ 12 would read what it was loaded from again for every use, and loads would
/// limit the loop.
WINNOW_INLINE Floats held(Floats v) {
  asm("" : "+x"(v));
  return v;
}

// --- arithmetic ---------------------------------------------------------------------------------

WINNOW_INLINE Floats broadcast(float v) { return _mm256_set1_ps(v); }
WINNOW_INLINE Floats add(Floats a, Floats b) { return _mm256_add_ps(a, b); }
WINNOW_INLINE Floats sub(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
WINNOW_INLINE Floats mul(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
WINNOW_INLINE Floats div(Floats a, Floats b) { return _mm256_div_ps(a, b); }
WINNOW_INLINE Floats sqrt(Floats v) { return _mm256_sqrt_ps(v); }
/// a * b + c and c - a * b, rounded once.
WINNOW_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
WINNOW_INLINE Floats fnma(Floats a, Floats b, Floats c) { return _mm256_fnmadd_ps(a, b, c); }
/// When either is NaN: b.
WINNOW_INLINE Floats max(Floats a, Floats b) { return _mm256_max_ps(a, b); }
WINNOW_INLINE Floats min(Floats a, Floats b) { return _mm256_min_ps(a, b); }
WINNOW_INLINE float reduce_add(Floats v) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
WINNOW_INLINE float reduce_max(Floats v) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
/// To the nearest integer, ties to even; |v| < 2^31.
WINNOW_INLINE Ints round(Floats v) { return _mm256_cvtps_epi32(v); }
WINNOW_INLINE Floats to_floats(Ints v) { return _mm256_cvtepi32_ps(v); }
/// v * 2^n with |n| <= 250, rounded once: the first of the two factors is exact.
WINNOW_INLINE Floats scale_by_power(Floats v, Ints n) {
  const Ints half = _mm256_srai_epi32(n, 1);
  const Ints rest = _mm256_sub_epi32(n, half);
  const Ints bias = _mm256_set1_epi32(127);
  const Ints first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const Ints second = _mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23);
  return mul(mul(v, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}

/// table[i mod kLanes] where i is what is left of 16-bit words shifted right by kShift.
template <int kShift>
WINNOW_INLINE Floats look_up_fields(Floats table, Ints words) {
  return _mm256_permutevar8x32_ps(table, _mm256_srli_epi32(words, kShift));
}
WINNOW_INLINE Ints load_words(const std::uint16_t* p) {
  return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
/// Bit i: whether a == b, or the sign of v, in lane i.
WINNOW_INLINE unsigned signs(Floats v) { return static_cast<unsigned>(_mm256_movemask_ps(v)); }
WINNOW_INLINE unsigned equal(Floats a, Floats b) { return signs(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)); }
WINNOW_INLINE float reduce_min(Floats v) {
  const __m128 four = _mm_min_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_min_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_min_ss(two, _mm_movehdup_ps(two)));
}

// --- f64; sums and products are written with operators ------------------------------------------

using Doubles = __m256d;
WINNOW_INLINE Doubles load_doubles(const double* p) { return _mm256_loadu_pd(p); }
WINNOW_INLINE void store_doubles(double* p, Doubles v) { _mm256_storeu_pd(p, v); }
WINNOW_INLINE Doubles widen(const float* p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }

// --- integers -----------------------------------------------------------------------------------

WINNOW_INLINE Ints zero_ints() { return _mm256_setzero_si256(); }
WINNOW_INLINE Ints add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
WINNOW_INLINE Ints max(Ints a, Ints b) { return _mm256_max_epi32(a, b); }
/// The bits of |v|: ordered as the magnitudes are, infinity and then NaN above all numbers.
WINNOW_INLINE Ints magnitude_bits(Floats v) {
  return _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7fffffff));
}
WINNOW_INLINE std::int32_t reduce_add(Ints v) {
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  const __m128i two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 1)));
}
WINNOW_INLINE std::int32_t reduce_max(Ints v) {
  const __m128i four = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  const __m128i two = _mm_max_epi32(four, _mm_unpackhi_epi64(four, four));
  return _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 1)));
}
/// Writes kLanes integers in [-128, 127] as bytes.
WINNOW_INLINE void store_codes(std::int8_t* p, Ints v) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
}

// --- codes: two parts of 16 bytes
// -----------------------------------------------------------------

using Codes = __m256i;
inline constexpr std::size_t kParts = 2;

WINNOW_INLINE __m128i load_part(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}
WINNOW_INLINE Codes load_codes(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
WINNOW_INLINE void store_codes_whole(void* p, Codes v) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), v);
}
/// Part q is the 16 bytes at p + q * kStride.
template <std::size_t kStride>
WINNOW_INLINE Codes load_parts(const std::byte* p) {
  if constexpr (kStride == 16) return load_codes(p);
  return _mm256_inserti128_si256(_mm256_castsi128_si256(load_part(p)), load_part(p + kStride), 1);
}
/// Parts alternate between the 16 bytes at p and those after them.
WINNOW_INLINE Codes load_pairs(const std::byte* p) { return load_codes(p); }
/// All parts are the 16 bytes at p.
WINNOW_INLINE Codes load_repeated(const std::byte* p) {
  return _mm256_broadcastsi128_si256(load_part(p));
}
/// (byte >> shift) & mask in every byte; the shift may differ between halves or parts.
template <unsigned kShift, unsigned kMask>
WINNOW_INLINE Codes field(Codes v) {
  const Codes moved = kShift == 0 ? v : _mm256_srli_epi16(v, kShift);
  return _mm256_and_si256(moved, _mm256_set1_epi8(kMask));
}
/// Bits of every byte moved right by kShift (left where negative) and cut to kMask, which leaves
/// only bits that stay in their byte; the shift may differ between halves or parts.
template <int kLower, int kUpper, unsigned kMask>
WINNOW_INLINE Codes field_by_half(Codes v) {
  static_assert(kLower == kUpper, "the two parts of a unit are neighbours here");
  const Codes mask = _mm256_set1_epi8(kMask);
  if constexpr (kLower >= 0) {
    return _mm256_and_si256(_mm256_srli_epi16(v, kLower), mask);
  } else {
    return _mm256_and_si256(_mm256_slli_epi16(v, -kLower), mask);
  }
}
template <int kFirst, int kStep, unsigned kMask>
WINNOW_INLINE Codes field_by_part(Codes v) {
  constexpr int a = kFirst & 31, b = (kFirst + kStep) & 31;  // a rotation of 32 bits
  const Ints right = _mm256_setr_epi32(a, a, a, a, b, b, b, b);
  const Ints left = _mm256_sub_epi32(_mm256_set1_epi32(32), right);
  const Ints moved = _mm256_or_si256(_mm256_srlv_epi32(v, right), _mm256_sllv_epi32(v, left));
  return _mm256_and_si256(moved, _mm256_set1_epi8(kMask));
}
/// Even and odd 16 bytes of the 64 at p.
WINNOW_INLINE void load_alternate(const std::byte* p, Codes& even, Codes& odd) {
  const Codes a = load_codes(p);
  const Codes b = load_codes(p + 32);
  even = _mm256_permute2x128_si256(a, b, 0x20);
  odd = _mm256_permute2x128_si256(a, b, 0x31);
}
/// Byte j of part q is kValue where bit j of the 16 bits at p + q * kStride is set, else 0.
template <std::size_t kStride, int kValue>
WINNOW_INLINE Codes codes_of_bits(const std::byte* p) {
  const Ints words = _mm256_setr_m128i(_mm_set1_epi16(detail::load_as<std::int16_t>(p)),
                                       _mm_set1_epi16(detail::load_as<std::int16_t>(p + kStride)));
  const Ints bytes = _mm256_shuffle_epi8(  // the lower byte eight times, then the upper
      words, _mm256_setr_epi64x(0, 0x0101010101010101, 0, 0x0101010101010101));
  const Ints bits = _mm256_set1_epi64x(static_cast<std::int64_t>(0x8040201008040201ULL));
  const Ints set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bits), bits);
  return _mm256_and_si256(set, _mm256_set1_epi8(kValue));
}
WINNOW_INLINE Codes merge(Codes a, Codes b) { return _mm256_or_si256(a, b); }
/// table[code] for codes in [0, 16).
WINNOW_INLINE Codes look_up(const std::int8_t* table, Codes codes) {
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load_part(table)), codes);
}
/// The four bytes at p in every lane.
WINNOW_INLINE Codes broadcast_quad(const std::int8_t* p) {
  std::int32_t quad = 0;
  std::memcpy(&quad, p, sizeof quad);
  return _mm256_set1_epi32(quad);
}
/// The compiler has to take `v` for changed and used.
WINNOW_INLINE void keep(Ints& v) { asm volatile("" : "+x"(v)); }

WINNOW_INLINE Ints load_ints(const std::int32_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
WINNOW_INLINE Ints sub(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
WINNOW_INLINE Ints broadcast(std::int32_t v) { return _mm256_set1_epi32(v); }

using x86::Bytes16;
using x86::interleave_rows;
using x86::load_bytes16;
using x86::load_columns;
using x86::make_bytes16;
using x86::merge;
using x86::small_field;
using x86::split_pairs;
using x86::spread_bits;
using x86::transpose_bytes;

// --- four rows at a time: lane 4 q + e belongs to part q of row e
// ---------------------------------

/// The sums of the four lanes of each part.
WINNOW_INLINE Ints sum_parts(const Ints (&rows)[4]) {
  const Ints a = _mm256_add_epi32(_mm256_unpacklo_epi32(rows[0], rows[1]),
                                  _mm256_unpackhi_epi32(rows[0], rows[1]));
  const Ints b = _mm256_add_epi32(_mm256_unpacklo_epi32(rows[2], rows[3]),
                                  _mm256_unpackhi_epi32(rows[2], rows[3]));
  return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}
/// The same where a lane, and for kPairsFit the sum of two, is below 2^15: 16-bit words are packed
/// and added by multiplying with 1.
template <bool kPairsFit>
WINNOW_INLINE Ints sum_small_parts(const Ints (&rows)[4]) {
  const Ints ones = _mm256_set1_epi16(1);
  const Ints a = _mm256_madd_epi16(_mm256_packs_epi32(rows[0], rows[1]), ones);
  const Ints b = _mm256_madd_epi16(_mm256_packs_epi32(rows[2], rows[3]), ones);
  if constexpr (kPairsFit) return _mm256_madd_epi16(_mm256_packs_epi32(a, b), ones);
  const __m256 x = _mm256_castsi256_ps(a);
  const __m256 y = _mm256_castsi256_ps(b);
  return _mm256_add_epi32(_mm256_castps_si256(_mm256_shuffle_ps(x, y, 0x88)),
                          _mm256_castps_si256(_mm256_shuffle_ps(x, y, 0xdd)));
}
/// The four rows' totals: part 0 + part 1.
WINNOW_INLINE __m128 add_parts(Floats v) {
  return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}
/// Adds totals of parts in the same order; one vector of rows per part.
WINNOW_INLINE Floats add_parts(const Floats (&parts)[kParts]) { return add(parts[0], parts[1]); }
WINNOW_INLINE void store_four(float* p, __m128 v) { _mm_storeu_ps(p, v); }
/// Two floats from each row.
WINNOW_INLINE Floats floats_of_rows(const float* const (&rows)[4]) {
  __m128 two[4];
  for (std::size_t e = 0; e < 4; ++e) two[e] = _mm_castsi128_ps(_mm_loadu_si64(rows[e]));
  const __m128 a = _mm_unpacklo_ps(two[0], two[1]);
  const __m128 b = _mm_unpacklo_ps(two[2], two[3]);
  return _mm256_setr_m128(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a));
}
/// f16 at rows[e] + offset + q * kStride.
template <std::size_t kStride>
WINNOW_INLINE Floats halves_of_blocks(const std::byte* const (&rows)[4], std::size_t offset) {
  return _mm256_cvtph_ps(x86::make_bytes16(detail::four_halves(rows, offset),
                                           detail::four_halves(rows, offset + kStride)));
}
/// f16 at rows[e] + offset, the same in all parts.
WINNOW_INLINE Floats halves_of_rows(const std::byte* const (&rows)[4], std::size_t offset) {
  const std::uint64_t four = detail::four_halves(rows, offset);
  return _mm256_cvtph_ps(x86::make_bytes16(four, four));
}
/// Four f16 of the low (or high) 8 bytes, the same in all parts.
WINNOW_INLINE void repeat_halves(Bytes16 v, Floats& low, Floats& high) {
  const __m256 both = _mm256_cvtph_ps(v);
  low = _mm256_permute2f128_ps(both, both, 0x00);
  high = _mm256_permute2f128_ps(both, both, 0x11);
}
/// The byte at rows[e] + q * kStride.
template <std::size_t kStride>
WINNOW_INLINE Ints bytes_of_blocks(const std::byte* const (&rows)[4]) {
  const std::uint64_t eight =
      detail::four_bytes(rows, 0) | std::uint64_t{detail::four_bytes(rows, kStride)} << 32;
  return _mm256_cvtepu8_epi32(x86::make_bytes16(eight, 0));
}
/// 2^(exponent - 128) for exponents in [0, 255]; the lowest two are subnormal.
WINNOW_INLINE Floats powers_of_two(Ints exponents) {
  const Ints normal = _mm256_slli_epi32(_mm256_sub_epi32(exponents, _mm256_set1_epi32(1)), 23);
  const Ints subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), exponents);
  const Ints small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), exponents);
  return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, subnormal, small));
}

/// Signed bytes as floats: part q gets the four rows' bytes of group kGroups[q]. `quads[k]` holds
/// groups 4 k to 4 k + 3 (see interleave_rows). Both groups are in one quad.
template <std::size_t kG0, std::size_t kG1>
WINNOW_INLINE Floats floats_of_groups(const Bytes16 (&quads)[4]) {
  static_assert(kG0 / 4 == kG1 / 4);
  const __m128i bytes = _mm_shuffle_epi32(quads[kG0 / 4], kG0 % 4 | kG1 % 4 << 2);
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}

// --- eight rows at a time ------------------------------------------------------------------------

/// Part q of parts[g] becomes part g of parts[q].
WINNOW_INLINE void transpose_parts(Codes (&parts)[2]) {
  const Codes first = _mm256_permute2x128_si256(parts[0], parts[1], 0x20);
  parts[1] = _mm256_permute2x128_si256(parts[0], parts[1], 0x31);
  parts[0] = first;
}
/// From one vector per row to one vector per quad of codes: lane r of rows[d] becomes quad d of
/// row r.
WINNOW_INLINE void transpose_quads(Codes (&rows)[kLanes]) {
  Codes t[8];
  for (std::size_t i = 0; i < 8; i += 4) {
    const Codes a = _mm256_unpacklo_epi32(rows[i], rows[i + 1]);
    const Codes b = _mm256_unpackhi_epi32(rows[i], rows[i + 1]);
    const Codes c = _mm256_unpacklo_epi32(rows[i + 2], rows[i + 3]);
    const Codes d = _mm256_unpackhi_epi32(rows[i + 2], rows[i + 3]);
    t[i] = _mm256_unpacklo_epi64(a, c);
    t[i + 1] = _mm256_unpackhi_epi64(a, c);
    t[i + 2] = _mm256_unpacklo_epi64(b, d);
    t[i + 3] = _mm256_unpackhi_epi64(b, d);
  }
  // t[4 g + j], part q: quad 4 q + j of rows 4 g to 4 g + 3.
  for (std::size_t j = 0; j < 4; ++j) {
    Codes parts[2] = {t[j], t[4 + j]};
    transpose_parts(parts);
    rows[j] = parts[0];
    rows[4 + j] = parts[1];
  }
}
/// From one vector per four rows to one vector per part: part q of groups[g] becomes part g of
/// groups[q].
WINNOW_INLINE void transpose_parts(Floats (&groups)[kParts]) {
  Codes parts[2] = {_mm256_castps_si256(groups[0]), _mm256_castps_si256(groups[1])};
  transpose_parts(parts);
  for (std::size_t g = 0; g < 2; ++g) groups[g] = _mm256_castsi256_ps(parts[g]);
}

}  // namespace winnow::kernels::avx2
WINNOW_END_TARGET

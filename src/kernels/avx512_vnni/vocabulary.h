// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The words of AVX-512 with VNNI: 16 floats, 64 codes. The algorithms in detail/*.inl are written
// with them; no other file of this folder holds an intrinsic.
#pragma once

// g++ 12 takes the undefined upper lanes in its own header for a mistake of ours (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/detail/row_fields.h"
#include "kernels/detail/target.h"
#include "kernels/detail/x86_bytes.h"

#define WINNOW_TARGET_AVX512_VNNI "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c,bmi2"

WINNOW_BEGIN_TARGET(WINNOW_TARGET_AVX512_VNNI)
namespace winnow::kernels::avx512_vnni {

using Floats = __m512;
using Ints = __m512i;
inline constexpr std::size_t kLanes = 16;

// Rows and tokens of f32 multiplied together: 4 x 4 sums and what feeds them fit 32 registers.
inline constexpr std::size_t kTileRows = 4;
inline constexpr std::size_t kTileTokens = 4;

// Rows of a Gram matrix summed together: 12 x 2 vectors of sums and two of columns fit 32
// registers.
inline constexpr std::size_t kGramRows = 12;

// Rows and vectors of columns of a product of f32 matrices: 8 x 3 sums, three columns.
inline constexpr std::size_t kProductRows = 8;
inline constexpr std::size_t kProductVectors = 3;

// Rows (in vectors) and tokens of codes multiplied together. Q8_0 and Q4_0 with 64 tokens on one
// thread of a Zen 5 server: 3 x 4 gave 513 and 537 GOP/s, 2 x 4 461 and 490, 2 x 6 459 and 482, 2 x
// 8 456 and 467, 4 x 3 330 and 340 (its sums leave the registers).
inline constexpr std::size_t kPanelVectors = 3;
inline constexpr std::size_t kPanelTile = 4;
// From so many tokens on, unpacking into a panel costs less than going through the rows again.
inline constexpr std::size_t kPanelTokens = 12;

// --- loads and stores; *_first touch n <= kLanes elements, and other lanes are zero ------------

WINNOW_INLINE __mmask16 first_lanes(std::size_t n) {
  return static_cast<__mmask16>((1U << n) - 1U);
}
WINNOW_INLINE Floats load(const float* p) { return _mm512_loadu_ps(p); }
WINNOW_INLINE Floats load_first(const float* p, std::size_t n) {
  return _mm512_maskz_loadu_ps(first_lanes(n), p);
}
WINNOW_INLINE Floats load_first_or(const float* p, std::size_t n, Floats other) {
  return _mm512_mask_loadu_ps(other, first_lanes(n), p);
}
WINNOW_INLINE void store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
WINNOW_INLINE void store_first(float* p, Floats v, std::size_t n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), v);
}
WINNOW_INLINE Floats load_f16(const std::byte* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
WINNOW_INLINE Floats load_bf16(const std::byte* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
/// v in a register. g++ 12 would read what it was loaded from again for every use, and loads would
/// limit the loop.
WINNOW_INLINE Floats held(Floats v) {
  asm("" : "+v"(v));
  return v;
}

// --- arithmetic ---------------------------------------------------------------------------------

WINNOW_INLINE Floats broadcast(float v) { return _mm512_set1_ps(v); }
WINNOW_INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
WINNOW_INLINE Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
WINNOW_INLINE Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
WINNOW_INLINE Floats div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
WINNOW_INLINE Floats sqrt(Floats v) { return _mm512_sqrt_ps(v); }
/// a * b + c and c - a * b, rounded once.
WINNOW_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
WINNOW_INLINE Floats fnma(Floats a, Floats b, Floats c) { return _mm512_fnmadd_ps(a, b, c); }
/// When either is NaN: b.
WINNOW_INLINE Floats max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
WINNOW_INLINE Floats min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
WINNOW_INLINE float reduce_add(Floats v) { return _mm512_reduce_add_ps(v); }
/// reduce_add of each, bit for bit: lanes i and i + 8 are added first, i and i + 1 last.
WINNOW_INLINE __m128 reduce_add_four(const Floats (&v)[4]) {
  const Floats a =
      _mm512_add_ps(_mm512_shuffle_f32x4(v[0], v[1], 0x44), _mm512_shuffle_f32x4(v[0], v[1], 0xee));
  const Floats b =
      _mm512_add_ps(_mm512_shuffle_f32x4(v[2], v[3], 0x44), _mm512_shuffle_f32x4(v[2], v[3], 0xee));
  Floats sums = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  sums = _mm512_add_ps(sums, _mm512_permute_ps(sums, 0x4e));
  sums = _mm512_add_ps(sums, _mm512_permute_ps(sums, 0xb1));
  return _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, sums));
}
WINNOW_INLINE float reduce_max(Floats v) { return _mm512_reduce_max_ps(v); }
/// To the nearest integer, ties to even; |v| < 2^31.
WINNOW_INLINE Ints round(Floats v) { return _mm512_cvtps_epi32(v); }
WINNOW_INLINE Floats to_floats(Ints v) { return _mm512_cvtepi32_ps(v); }
/// v * 2^n with |n| <= 250, rounded once.
WINNOW_INLINE Floats scale_by_power(Floats v, Ints n) { return _mm512_scalef_ps(v, to_floats(n)); }

/// table[i mod kLanes] where i is what is left of 16-bit words shifted right by kShift.
template <int kShift>
WINNOW_INLINE Floats look_up_fields(Floats table, Ints words) {
  return _mm512_permutexvar_ps(_mm512_srli_epi32(words, kShift), table);
}
WINNOW_INLINE Ints load_words(const std::uint16_t* p) {
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
/// Bit i: whether a == b, or the sign of v, in lane i.
WINNOW_INLINE unsigned equal(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
WINNOW_INLINE unsigned signs(Floats v) { return _mm512_movepi32_mask(_mm512_castps_si512(v)); }
WINNOW_INLINE float reduce_min(Floats v) { return _mm512_reduce_min_ps(v); }

// --- f64; sums and products are written with operators ------------------------------------------

using Doubles = __m512d;
WINNOW_INLINE Doubles load_doubles(const double* p) { return _mm512_loadu_pd(p); }
WINNOW_INLINE void store_doubles(double* p, Doubles v) { _mm512_storeu_pd(p, v); }
WINNOW_INLINE Doubles widen(const float* p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }

// --- integers -----------------------------------------------------------------------------------

WINNOW_INLINE Ints zero_ints() { return _mm512_setzero_si512(); }
WINNOW_INLINE Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
WINNOW_INLINE Ints max(Ints a, Ints b) { return _mm512_max_epi32(a, b); }
/// The bits of |v|: ordered as the magnitudes are, infinity and then NaN above all numbers.
WINNOW_INLINE Ints magnitude_bits(Floats v) {
  return _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fffffff));
}
WINNOW_INLINE std::int32_t reduce_add(Ints v) { return _mm512_reduce_add_epi32(v); }
WINNOW_INLINE std::int32_t reduce_max(Ints v) { return _mm512_reduce_max_epi32(v); }
/// Writes kLanes integers in [-128, 127] as bytes.
WINNOW_INLINE void store_codes(std::int8_t* p, Ints v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(v));
}

// --- codes: four parts of 16 bytes ---------------------------------------------------------------

using Codes = __m512i;
inline constexpr std::size_t kParts = 4;

WINNOW_INLINE __m128i load_part(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}
WINNOW_INLINE Codes load_codes(const void* p) { return _mm512_loadu_si512(p); }
WINNOW_INLINE void store_codes_whole(void* p, Codes v) { _mm512_storeu_si512(p, v); }
WINNOW_INLINE Codes zero_codes() { return _mm512_setzero_si512(); }
/// Part q is the 16 bytes at p + q * kStride.
template <std::size_t kStride>
WINNOW_INLINE Codes load_parts(const std::byte* p) {
  if constexpr (kStride == 16) return load_codes(p);
  Codes v = _mm512_castsi128_si512(load_part(p));
  v = _mm512_inserti32x4(v, load_part(p + kStride), 1);
  v = _mm512_inserti32x4(v, load_part(p + 2 * kStride), 2);
  return _mm512_inserti32x4(v, load_part(p + 3 * kStride), 3);
}
/// Parts alternate between the 16 bytes at p and those after them. Every part gets the first when
/// an ISA has one part, so `p` has to begin at that part.
WINNOW_INLINE Codes load_pairs(const std::byte* p) {
  return _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
/// All parts are the 16 bytes at p.
WINNOW_INLINE Codes load_repeated(const std::byte* p) {
  return _mm512_broadcast_i32x4(load_part(p));
}
/// (byte >> shift) & mask in every byte; the shift may differ between halves or parts.
template <unsigned kShift, unsigned kMask>
WINNOW_INLINE Codes field(Codes v) {
  const Codes moved = kShift == 0 ? v : _mm512_srli_epi16(v, kShift);
  return _mm512_and_si512(moved, _mm512_set1_epi8(kMask));
}
/// Bits of every byte moved right by kShift (left where negative) and cut to kMask, which leaves
/// only bits that stay in their byte; the shift may differ between halves or parts.
template <int kLower, int kUpper, unsigned kMask>
WINNOW_INLINE Codes field_by_half(Codes v) {
  const Ints counts = _mm512_inserti64x4(_mm512_set1_epi32(kLower), _mm256_set1_epi32(kUpper), 1);
  return _mm512_and_si512(_mm512_rorv_epi32(v, counts), _mm512_set1_epi8(kMask));
}
template <int kFirst, int kStep, unsigned kMask>
WINNOW_INLINE Codes field_by_part(Codes v) {
  constexpr int a = kFirst, b = kFirst + kStep, c = kFirst + 2 * kStep, d = kFirst + 3 * kStep;
  const Ints counts = _mm512_setr_epi32(a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d);
  return _mm512_and_si512(_mm512_rorv_epi32(v, counts), _mm512_set1_epi8(kMask));
}
/// Even and odd 16 bytes of the 128 at p.
WINNOW_INLINE void load_alternate(const std::byte* p, Codes& even, Codes& odd) {
  const Codes a = load_codes(p);
  const Codes b = load_codes(p + 64);
  even = _mm512_shuffle_i64x2(a, b, 0x88);
  odd = _mm512_shuffle_i64x2(a, b, 0xdd);
}
/// Byte j of part q is kValue where bit j of the 16 bits at p + q * kStride is set, else 0.
template <std::size_t kStride, int kValue>
WINNOW_INLINE Codes codes_of_bits(const std::byte* p) {
  std::uint64_t bits = 0;
  for (std::size_t q = 0; q < kParts; ++q) {
    std::uint16_t part = 0;
    std::memcpy(&part, p + q * kStride, sizeof part);
    bits |= std::uint64_t{part} << (16 * q);
  }
  return _mm512_maskz_set1_epi8(bits, kValue);
}
WINNOW_INLINE Codes merge(Codes a, Codes b) { return _mm512_or_si512(a, b); }
/// table[code] for codes in [0, 16).
WINNOW_INLINE Codes look_up(const std::int8_t* table, Codes codes) {
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load_part(table)), codes);
}

// --- products of codes --------------------------------------------------------------------------

/// sum + products of codes 4 l to 4 l + 3 in lane l; weights in [0, 127].
WINNOW_INLINE Ints add_dot_small(Ints sum, Codes w, Codes x) {
  return _mm512_dpbusd_epi32(sum, w, x);
}
/// The same for raised weights: what `raise_signed` makes of codes in [-128, 127]. The instruction
/// multiplies unsigned by signed bytes, so that every product is too large by kSignedRaise * x.
inline constexpr std::int32_t kSignedRaise = 128;
WINNOW_INLINE Codes raise_signed(Codes w) {
  return _mm512_xor_si512(w, _mm512_set1_epi8(static_cast<char>(0x80)));
}
WINNOW_INLINE Ints add_dot_raised(Ints sum, Codes w, Codes x) {
  return _mm512_dpbusd_epi32(sum, w, x);
}

/// 4 products to a lane: sum + unsigned x times signed w.
inline constexpr std::size_t kRegisterCodes = 64;
WINNOW_INLINE Ints add_dot_u8i8(Ints sum, Ints x, Ints w) { return _mm512_dpbusd_epi32(sum, x, w); }
/// The compiler has to take `v` for changed and used.
WINNOW_INLINE void keep(Ints& v) { asm volatile("" : "+v"(v)); }

WINNOW_INLINE Ints load_ints(const std::int32_t* p) { return _mm512_loadu_si512(p); }
WINNOW_INLINE Ints sub(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
WINNOW_INLINE Ints broadcast(std::int32_t v) { return _mm512_set1_epi32(v); }
/// The four bytes at p in every lane.
WINNOW_INLINE Codes broadcast_quad(const std::int8_t* p) {
  std::int32_t quad = 0;
  std::memcpy(&quad, p, sizeof quad);
  return _mm512_set1_epi32(quad);
}

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
  const Ints a = _mm512_add_epi32(_mm512_unpacklo_epi32(rows[0], rows[1]),
                                  _mm512_unpackhi_epi32(rows[0], rows[1]));
  const Ints b = _mm512_add_epi32(_mm512_unpacklo_epi32(rows[2], rows[3]),
                                  _mm512_unpackhi_epi32(rows[2], rows[3]));
  return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}
/// The same where a lane, and for kPairsFit the sum of two, is below 2^15: 16-bit words are packed
/// and added by multiplying with 1.
template <bool kPairsFit>
WINNOW_INLINE Ints sum_small_parts(const Ints (&rows)[4]) {
  const Ints ones = _mm512_set1_epi16(1);
  const Ints a = _mm512_madd_epi16(_mm512_packs_epi32(rows[0], rows[1]), ones);
  const Ints b = _mm512_madd_epi16(_mm512_packs_epi32(rows[2], rows[3]), ones);
  if constexpr (kPairsFit) return _mm512_madd_epi16(_mm512_packs_epi32(a, b), ones);
  const __m512 x = _mm512_castsi512_ps(a);
  const __m512 y = _mm512_castsi512_ps(b);
  return _mm512_add_epi32(_mm512_castps_si512(_mm512_shuffle_ps(x, y, 0x88)),
                          _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0xdd)));
}
/// The four rows' totals: (part 0 + part 2) + (part 1 + part 3).
WINNOW_INLINE __m128 add_parts(Floats v) {
  const __m256 pairs = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
}
/// Adds totals of parts in the same order; one vector of rows per part.
WINNOW_INLINE Floats add_parts(const Floats (&parts)[kParts]) {
  return add(add(parts[0], parts[2]), add(parts[1], parts[3]));
}
WINNOW_INLINE void store_four(float* p, __m128 v) { _mm_storeu_ps(p, v); }
/// Four floats from each row.
WINNOW_INLINE Floats floats_of_rows(const float* const (&rows)[4]) {
  __m128 a = _mm_loadu_ps(rows[0]);
  __m128 b = _mm_loadu_ps(rows[1]);
  __m128 c = _mm_loadu_ps(rows[2]);
  __m128 d = _mm_loadu_ps(rows[3]);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  const __m256 low = _mm256_insertf128_ps(_mm256_castps128_ps256(a), b, 1);
  return _mm512_insertf32x8(_mm512_castps256_ps512(low),
                            _mm256_insertf128_ps(_mm256_castps128_ps256(c), d, 1), 1);
}
/// Which 16-bit word of two registers goes to lane 4 q + e: word q * kWords of the first for row
/// kRow, of the second for the next row.
template <std::size_t kWords, std::size_t kRow>
WINNOW_INLINE Ints word_order() {
  constexpr auto at = [](std::size_t lane) {
    const std::size_t word = lane / 4 * kWords;
    return static_cast<short>(lane % 4 == kRow + 1 ? 32 + word : word);
  };
  return _mm512_castsi256_si512(_mm256_setr_epi16(at(0), at(1), at(2), at(3), at(4), at(5), at(6),
                                                  at(7), at(8), at(9), at(10), at(11), at(12),
                                                  at(13), at(14), at(15)));
}
/// f16 at rows[e] + offset + q * kStride. Where the four lie within 64 bytes, those are read.
template <std::size_t kStride>
WINNOW_INLINE Floats halves_of_blocks(const std::byte* const (&rows)[4], std::size_t offset) {
  if constexpr (3 * kStride + 2 <= 64) {
    const Codes a = _mm512_permutex2var_epi16(
        load_codes(rows[0] + offset), word_order<kStride / 2, 0>(), load_codes(rows[1] + offset));
    const Codes b = _mm512_permutex2var_epi16(
        load_codes(rows[2] + offset), word_order<kStride / 2, 2>(), load_codes(rows[3] + offset));
    return _mm512_cvtph_ps(
        _mm256_mask_blend_epi16(0xcccc, _mm512_castsi512_si256(a), _mm512_castsi512_si256(b)));
  }
  __m128i parts[kParts];
  for (std::size_t q = 0; q < kParts; ++q) {
    parts[q] = _mm_cvtsi64_si128(
        static_cast<std::int64_t>(detail::four_halves(rows, offset + q * kStride)));
  }
  const __m128i low = _mm_unpacklo_epi64(parts[0], parts[1]);
  return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(low),
                                                 _mm_unpacklo_epi64(parts[2], parts[3]), 1));
}
/// f16 at rows[e] + offset, the same in all parts.
WINNOW_INLINE Floats halves_of_rows(const std::byte* const (&rows)[4], std::size_t offset) {
  const auto four = static_cast<std::int64_t>(detail::four_halves(rows, offset));
  return _mm512_broadcast_f32x4(_mm_cvtph_ps(_mm_cvtsi64_si128(four)));
}
/// Four f16 of `low` (or `high`) 8 bytes, the same in all parts.
WINNOW_INLINE void repeat_halves(Bytes16 v, Floats& low, Floats& high) {
  const __m256 both = _mm256_cvtph_ps(v);
  low = _mm512_broadcast_f32x4(_mm256_castps256_ps128(both));
  high = _mm512_broadcast_f32x4(_mm256_extractf128_ps(both, 1));
}
/// The byte at rows[e] + q * kStride.
template <std::size_t kStride>
WINNOW_INLINE Ints bytes_of_blocks(const std::byte* const (&rows)[4]) {
  std::uint32_t parts[kParts];
  for (std::size_t q = 0; q < kParts; ++q) parts[q] = detail::four_bytes(rows, q * kStride);
  return _mm512_cvtepu8_epi32(load_part(parts));
}
/// 2^(exponent - 128) for exponents in [0, 255]; the lowest two are subnormal.
WINNOW_INLINE Floats powers_of_two(Ints exponents) {
  const Ints normal = _mm512_slli_epi32(_mm512_sub_epi32(exponents, _mm512_set1_epi32(1)), 23);
  const Ints subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), exponents);
  const __mmask16 small = _mm512_cmplt_epi32_mask(exponents, _mm512_set1_epi32(2));
  return _mm512_castsi512_ps(_mm512_mask_blend_epi32(small, normal, subnormal));
}

/// Signed bytes as floats: part q gets the four rows' bytes of group kGroups[q]. `quads[k]` holds
/// groups 4 k to 4 k + 3 (see interleave_rows). The first two groups share a quad, and so do the
/// last two.
template <std::size_t kG0, std::size_t kG1, std::size_t kG2, std::size_t kG3>
WINNOW_INLINE Floats floats_of_groups(const Bytes16 (&quads)[4]) {
  static_assert(kG0 / 4 == kG1 / 4 && kG2 / 4 == kG3 / 4);
  constexpr int kOrder = kG0 % 4 | kG1 % 4 << 2 | kG2 % 4 << 4 | kG3 % 4 << 6;
  const __m128 a = _mm_castsi128_ps(quads[kG0 / 4]);
  const __m128 b = _mm_castsi128_ps(quads[kG2 / 4]);
  const __m128i bytes = _mm_castps_si128(_mm_shuffle_ps(a, b, kOrder));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}

// --- sixteen rows at a time ----------------------------------------------------------------------

/// Part q of parts[g] becomes part g of parts[q].
WINNOW_INLINE void transpose_parts(Codes (&parts)[4]) {
  const Codes a = _mm512_shuffle_i32x4(parts[0], parts[1], 0x44);
  const Codes b = _mm512_shuffle_i32x4(parts[0], parts[1], 0xee);
  const Codes c = _mm512_shuffle_i32x4(parts[2], parts[3], 0x44);
  const Codes d = _mm512_shuffle_i32x4(parts[2], parts[3], 0xee);
  parts[0] = _mm512_shuffle_i32x4(a, c, 0x88);
  parts[1] = _mm512_shuffle_i32x4(a, c, 0xdd);
  parts[2] = _mm512_shuffle_i32x4(b, d, 0x88);
  parts[3] = _mm512_shuffle_i32x4(b, d, 0xdd);
}
/// From one vector per row to one vector per quad of codes: lane r of rows[d] becomes quad d of
/// row r.
WINNOW_INLINE void transpose_quads(Codes (&rows)[kLanes]) {
  Codes t[16];
  for (std::size_t i = 0; i < 16; i += 4) {
    const Codes a = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    const Codes b = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    const Codes c = _mm512_unpacklo_epi32(rows[i + 2], rows[i + 3]);
    const Codes d = _mm512_unpackhi_epi32(rows[i + 2], rows[i + 3]);
    t[i] = _mm512_unpacklo_epi64(a, c);
    t[i + 1] = _mm512_unpackhi_epi64(a, c);
    t[i + 2] = _mm512_unpacklo_epi64(b, d);
    t[i + 3] = _mm512_unpackhi_epi64(b, d);
  }
  // t[4 g + j], part q: quad 4 q + j of rows 4 g to 4 g + 3.
  for (std::size_t j = 0; j < 4; ++j) {
    Codes parts[4] = {t[j], t[4 + j], t[8 + j], t[12 + j]};
    transpose_parts(parts);
    for (std::size_t q = 0; q < 4; ++q) rows[4 * q + j] = parts[q];
  }
}
/// From one vector per four rows to one vector per part: part q of groups[g] becomes part g of
/// groups[q].
WINNOW_INLINE void transpose_parts(Floats (&groups)[kParts]) {
  Codes parts[4];
  for (std::size_t g = 0; g < 4; ++g) parts[g] = _mm512_castps_si512(groups[g]);
  transpose_parts(parts);
  for (std::size_t g = 0; g < 4; ++g) groups[g] = _mm512_castsi512_ps(parts[g]);
}

}  // namespace winnow::kernels::avx512_vnni
WINNOW_END_TARGET

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The words of AVX2 with FMA and F16C: 8 floats, 32 codes. The algorithms in detail/*.inl are
// written with them; no other file of this folder holds an intrinsic.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/detail/target.h"

#define WINNOW_TARGET_AVX2 "avx2,fma,f16c,bmi2"

WINNOW_BEGIN_TARGET(WINNOW_TARGET_AVX2)
namespace winnow::kernels::avx2 {

using Floats = __m256;
using Ints = __m256i;
inline constexpr std::size_t kLanes = 8;

// Rows and tokens multiplied together: 2 x 4 sums and what feeds them fit 16 registers.
inline constexpr std::size_t kTileRows = 2;
inline constexpr std::size_t kTileTokens = 4;

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

// --- products of codes --------------------------------------------------------------------------

/// 32 weights as magnitudes, beside their signs, which are moved to the activations:
/// |w| <= 128 and |x| <= 127, so that a sum of two products stays below 2^15 and is exact.
struct Weights {
  Ints codes;
  Ints magnitudes;
};
struct Activations {
  Ints codes;
};

/// Lane l holds the exact integer sum of the products of codes 4 l to 4 l + 3.
WINNOW_INLINE Ints dot_codes(const Weights& w, const Activations& x) {
  const Ints pairs = _mm256_maddubs_epi16(w.magnitudes, _mm256_sign_epi8(x.codes, w.codes));
  return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/// 4 products to a lane: sum + unsigned x times signed w; their pairs may saturate, so this serves
/// to measure only.
inline constexpr std::size_t kRegisterCodes = 32;
WINNOW_INLINE Ints add_dot_u8i8(Ints sum, Ints x, Ints w) {
  return add(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)));
}
/// The compiler has to take `v` for changed and used.
WINNOW_INLINE void keep(Ints& v) { asm volatile("" : "+x"(v)); }

/// One step along a row: one activation block.
struct FullStep {
  static constexpr std::size_t kCodes = 32;
  WINNOW_INLINE static Ints load(const std::int8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  WINNOW_INLINE static Weights weights(const std::int8_t* p) {
    const Ints codes = load(p);
    return {codes, _mm256_abs_epi8(codes)};
  }
  WINNOW_INLINE static Activations activations(const std::int8_t* p) { return {load(p)}; }
  /// One float per group of 16 codes, put on the lanes of the group; and one per block of 32.
  WINNOW_INLINE static Floats group_scales(const float* p) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_broadcast_ss(p)),
                                _mm_broadcast_ss(p + 1), 1);
  }
  WINNOW_INLINE static Floats block_scales(const float* p) { return _mm256_broadcast_ss(p); }
};
/// What remains when a row is no multiple of FullStep: never, here.
using LastStep = FullStep;

/// The first n <= kLanes integers as floats; then the first n / 2 floats, each on two lanes.
WINNOW_INLINE Floats load_ints_first(const std::int32_t* p, std::size_t n) {
  return to_floats(_mm256_maskload_epi32(p, first_lanes(n)));
}
WINNOW_INLINE Floats load_doubled_first(const float* p, std::size_t n) {
  const Floats v = load_first(p, n / 2);
  return _mm256_permutevar8x32_ps(v, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
}

}  // namespace winnow::kernels::avx2
WINNOW_END_TARGET

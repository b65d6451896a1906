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

#include "kernels/detail/target.h"

#define WINNOW_TARGET_AVX512_VNNI "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c,bmi2"

WINNOW_BEGIN_TARGET(WINNOW_TARGET_AVX512_VNNI)
namespace winnow::kernels::avx512_vnni {

using Floats = __m512;
using Ints = __m512i;
inline constexpr std::size_t kLanes = 16;

// Rows and tokens multiplied together: 4 x 4 sums and what feeds them fit 32 registers.
inline constexpr std::size_t kTileRows = 4;
inline constexpr std::size_t kTileTokens = 4;

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
WINNOW_INLINE float reduce_max(Floats v) { return _mm512_reduce_max_ps(v); }
/// To the nearest integer, ties to even; |v| < 2^31.
WINNOW_INLINE Ints round(Floats v) { return _mm512_cvtps_epi32(v); }
WINNOW_INLINE Floats to_floats(Ints v) { return _mm512_cvtepi32_ps(v); }
/// v * 2^n with |n| <= 250, rounded once.
WINNOW_INLINE Floats scale_by_power(Floats v, Ints n) { return _mm512_scalef_ps(v, to_floats(n)); }

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

// --- products of codes --------------------------------------------------------------------------

/// The instruction multiplies unsigned by signed bytes, so activations are raised by 128, and
/// lane l of a sum begins at -128 times the sum of its four weights, found once for all tokens.
struct Weights {
  Ints codes;
  Ints correction;
};
struct Activations {
  Ints raised_codes;
};

/// Lane l holds the exact integer sum of the products of codes 4 l to 4 l + 3.
WINNOW_INLINE Ints dot_codes(const Weights& w, const Activations& x) {
  return _mm512_dpbusd_epi32(w.correction, x.raised_codes, w.codes);
}
WINNOW_INLINE Weights prepare_weights(Ints codes) {
  const Ints raise = _mm512_set1_epi8(static_cast<char>(0x80));
  const Ints excess = _mm512_dpbusd_epi32(zero_ints(), raise, codes);
  return {codes, _mm512_sub_epi32(zero_ints(), excess)};
}
WINNOW_INLINE Activations prepare_activations(Ints codes) {
  return {_mm512_xor_si512(codes, _mm512_set1_epi8(static_cast<char>(0x80)))};
}

/// 4 products to a lane: sum + unsigned x times signed w.
inline constexpr std::size_t kRegisterCodes = 64;
WINNOW_INLINE Ints add_dot_u8i8(Ints sum, Ints x, Ints w) { return _mm512_dpbusd_epi32(sum, x, w); }
/// The compiler has to take `v` for changed and used.
WINNOW_INLINE void keep(Ints& v) { asm volatile("" : "+v"(v)); }

/// One step along a row: two activation blocks.
struct FullStep {
  static constexpr std::size_t kCodes = 64;
  WINNOW_INLINE static Weights weights(const std::int8_t* p) {
    return prepare_weights(_mm512_loadu_si512(p));
  }
  WINNOW_INLINE static Activations activations(const std::int8_t* p) {
    return prepare_activations(_mm512_loadu_si512(p));
  }
  /// One float per group of 16 codes, put on the lanes of the group; and one per block of 32.
  WINNOW_INLINE static Floats group_scales(const float* p) {
    const Ints lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    return _mm512_permutexvar_ps(lanes, _mm512_castps128_ps512(_mm_loadu_ps(p)));
  }
  WINNOW_INLINE static Floats block_scales(const float* p) {
    return _mm512_mask_broadcastss_ps(broadcast(p[0]), 0xff00, _mm_load_ss(p + 1));
  }
};

/// The block that remains when a row is no multiple of FullStep. Lanes without codes give 0.
struct LastStep {
  static constexpr std::size_t kCodes = 32;
  WINNOW_INLINE static Ints load(const std::int8_t* p) {
    return _mm512_zextsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  WINNOW_INLINE static Weights weights(const std::int8_t* p) { return prepare_weights(load(p)); }
  WINNOW_INLINE static Activations activations(const std::int8_t* p) {
    return prepare_activations(load(p));
  }
  WINNOW_INLINE static Floats group_scales(const float* p) {
    return _mm512_mask_broadcastss_ps(_mm512_maskz_broadcastss_ps(0x000f, _mm_load_ss(p)), 0x00f0,
                                      _mm_load_ss(p + 1));
  }
  WINNOW_INLINE static Floats block_scales(const float* p) {
    return _mm512_maskz_broadcastss_ps(0x00ff, _mm_load_ss(p));
  }
};

/// The first n <= kLanes integers as floats; then the first n / 2 floats, each on two lanes.
WINNOW_INLINE Floats load_ints_first(const std::int32_t* p, std::size_t n) {
  return to_floats(_mm512_maskz_loadu_epi32(first_lanes(n), p));
}
WINNOW_INLINE Floats load_doubled_first(const float* p, std::size_t n) {
  const Ints lanes = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  return _mm512_permutexvar_ps(lanes, load_first(p, n / 2));
}

}  // namespace winnow::kernels::avx512_vnni
WINNOW_END_TARGET

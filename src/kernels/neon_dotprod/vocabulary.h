// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The words of 64-bit Arm with int8 dot products: 4 floats, 16 codes. The algorithms in
// detail/*.inl are written with them; no other file of this folder but dot.h holds an intrinsic.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/detail/row_fields.h"
#include "kernels/detail/target.h"

// GCC's intrinsics want the architecture that the extension came with, Clang the extension's name.
#ifdef __clang__
#define WINNOW_TARGET_NEON_DOTPROD "dotprod"
#else
#define WINNOW_TARGET_NEON_DOTPROD "arch=armv8.2-a+dotprod"
#endif

WINNOW_BEGIN_TARGET(WINNOW_TARGET_NEON_DOTPROD)
namespace winnow::kernels::neon_dotprod {

using Floats = float32x4_t;
using Ints = int32x4_t;
inline constexpr std::size_t kLanes = 4;

// Rows and tokens of f32 multiplied together: 4 x 4 sums and what feeds them fit 32 registers.
inline constexpr std::size_t kTileRows = 4;
inline constexpr std::size_t kTileTokens = 4;

// Rows (in vectors) and tokens of codes multiplied together: 4 x 3 sums, as many dot products, and
// what feeds them are 29 registers of 32.
inline constexpr std::size_t kPanelVectors = 4;
inline constexpr std::size_t kPanelTile = 3;
inline constexpr std::size_t kPanelTokens = 12;

// --- loads and stores; *_first touch n <= kLanes elements, and other lanes are zero ------------

WINNOW_INLINE Floats load(const float* p) { return vld1q_f32(p); }
WINNOW_INLINE Floats load_first(const float* p, std::size_t n) {
  if (n >= kLanes) return load(p);
  Floats v = vdupq_n_f32(0.0F);
  if (n >= 1) v = vld1q_lane_f32(p, v, 0);
  if (n >= 2) v = vld1q_lane_f32(p + 1, v, 1);
  if (n >= 3) v = vld1q_lane_f32(p + 2, v, 2);
  return v;
}
WINNOW_INLINE Floats load_first_or(const float* p, std::size_t n, Floats other) {
  if (n >= kLanes) return load(p);
  if (n >= 1) other = vld1q_lane_f32(p, other, 0);
  if (n >= 2) other = vld1q_lane_f32(p + 1, other, 1);
  if (n >= 3) other = vld1q_lane_f32(p + 2, other, 2);
  return other;
}
WINNOW_INLINE void store(float* p, Floats v) { vst1q_f32(p, v); }
WINNOW_INLINE void store_first(float* p, Floats v, std::size_t n) {
  if (n >= kLanes) return store(p, v);
  if (n >= 1) vst1q_lane_f32(p, v, 0);
  if (n >= 2) vst1q_lane_f32(p + 1, v, 1);
  if (n >= 3) vst1q_lane_f32(p + 2, v, 2);
}
/// Four f16 as floats.
WINNOW_INLINE Floats from_halves(std::uint64_t four) {
  return vcvt_f32_f16(vreinterpret_f16_u64(vcreate_u64(four)));
}
WINNOW_INLINE Floats load_f16(const std::byte* p) {
  return from_halves(detail::load_as<std::uint64_t>(p));
}
WINNOW_INLINE Floats load_bf16(const std::byte* p) {
  const uint16x4_t four = vcreate_u16(detail::load_as<std::uint64_t>(p));
  return vreinterpretq_f32_u32(vshll_n_u16(four, 16));
}
/// v; where registers are few, in one.
WINNOW_INLINE Floats held(Floats v) { return v; }

// --- arithmetic ---------------------------------------------------------------------------------

WINNOW_INLINE Floats broadcast(float v) { return vdupq_n_f32(v); }
WINNOW_INLINE Floats add(Floats a, Floats b) { return vaddq_f32(a, b); }
WINNOW_INLINE Floats sub(Floats a, Floats b) { return vsubq_f32(a, b); }
WINNOW_INLINE Floats mul(Floats a, Floats b) { return vmulq_f32(a, b); }
WINNOW_INLINE Floats div(Floats a, Floats b) { return vdivq_f32(a, b); }
WINNOW_INLINE Floats sqrt(Floats v) { return vsqrtq_f32(v); }
/// a * b + c and c - a * b, rounded once.
WINNOW_INLINE Floats fma(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
WINNOW_INLINE Floats fnma(Floats a, Floats b, Floats c) { return vfmsq_f32(c, a, b); }
/// When either is NaN: b. The instructions of that name would give NaN.
WINNOW_INLINE Floats max(Floats a, Floats b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
WINNOW_INLINE Floats min(Floats a, Floats b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
/// (0 + 2) + (1 + 3), as the wider ISAs end.
WINNOW_INLINE float reduce_add(Floats v) {
  return vpadds_f32(vadd_f32(vget_low_f32(v), vget_high_f32(v)));
}
/// reduce_add of each, bit for bit.
WINNOW_INLINE Floats reduce_add_four(const Floats (&v)[4]) {
  const Floats a = vtrn1q_f32(v[0], v[1]);
  const Floats b = vtrn2q_f32(v[0], v[1]);
  const Floats c = vtrn1q_f32(v[2], v[3]);
  const Floats d = vtrn2q_f32(v[2], v[3]);
  const float32x2_t low = vadd_f32(vadd_f32(vget_low_f32(a), vget_high_f32(a)),
                                   vadd_f32(vget_low_f32(b), vget_high_f32(b)));
  const float32x2_t high = vadd_f32(vadd_f32(vget_low_f32(c), vget_high_f32(c)),
                                    vadd_f32(vget_low_f32(d), vget_high_f32(d)));
  return vcombine_f32(low, high);
}
WINNOW_INLINE float reduce_max(Floats v) {
  const Floats two = max(v, vextq_f32(v, v, 2));
  return vgetq_lane_f32(max(two, vextq_f32(two, two, 1)), 0);
}
/// To the nearest integer, ties to even; |v| < 2^31.
WINNOW_INLINE Ints round(Floats v) { return vcvtnq_s32_f32(v); }
WINNOW_INLINE Floats to_floats(Ints v) { return vcvtq_f32_s32(v); }
/// v * 2^n with |n| <= 250, rounded once: the first of the two factors is exact.
WINNOW_INLINE Floats scale_by_power(Floats v, Ints n) {
  const Ints half = vshrq_n_s32(n, 1);
  const Ints rest = vsubq_s32(n, half);
  const Ints bias = vdupq_n_s32(127);
  const Ints first = vshlq_n_s32(vaddq_s32(half, bias), 23);
  const Ints second = vshlq_n_s32(vaddq_s32(rest, bias), 23);
  return mul(mul(v, vreinterpretq_f32_s32(first)), vreinterpretq_f32_s32(second));
}

// --- integers -----------------------------------------------------------------------------------

WINNOW_INLINE Ints zero_ints() { return vdupq_n_s32(0); }
WINNOW_INLINE Ints broadcast(std::int32_t v) { return vdupq_n_s32(v); }
WINNOW_INLINE Ints load_ints(const std::int32_t* p) { return vld1q_s32(p); }
WINNOW_INLINE Ints add(Ints a, Ints b) { return vaddq_s32(a, b); }
WINNOW_INLINE Ints sub(Ints a, Ints b) { return vsubq_s32(a, b); }
WINNOW_INLINE Ints max(Ints a, Ints b) { return vmaxq_s32(a, b); }
/// The bits of |v|: ordered as the magnitudes are, infinity and then NaN above all numbers.
WINNOW_INLINE Ints magnitude_bits(Floats v) {
  return vandq_s32(vreinterpretq_s32_f32(v), vdupq_n_s32(0x7fffffff));
}
WINNOW_INLINE std::int32_t reduce_add(Ints v) { return vaddvq_s32(v); }
WINNOW_INLINE std::int32_t reduce_max(Ints v) { return vmaxvq_s32(v); }
/// Writes kLanes integers in [-128, 127] as bytes.
WINNOW_INLINE void store_codes(std::int8_t* p, Ints v) {
  const int16x4_t words = vmovn_s32(v);
  const int8x8_t bytes = vmovn_s16(vcombine_s16(words, words));
  const std::int32_t four = vget_lane_s32(vreinterpret_s32_s8(bytes), 0);
  std::memcpy(p, &four, sizeof four);
}

// --- codes: one part of 16 bytes ----------------------------------------------------------------

using Codes = uint8x16_t;
inline constexpr std::size_t kParts = 1;

WINNOW_INLINE Codes load_codes(const void* p) {
  return vld1q_u8(static_cast<const std::uint8_t*>(p));
}
WINNOW_INLINE void store_codes_whole(void* p, Codes v) {
  vst1q_u8(static_cast<std::uint8_t*>(p), v);
}
/// Part q is the 16 bytes at p + q * kStride.
template <std::size_t kStride>
WINNOW_INLINE Codes load_parts(const std::byte* p) {
  return load_codes(p);
}
/// Parts alternate between the 16 bytes at p and those after them.
WINNOW_INLINE Codes load_pairs(const std::byte* p) { return load_codes(p); }
/// All parts are the 16 bytes at p.
WINNOW_INLINE Codes load_repeated(const std::byte* p) { return load_codes(p); }
/// Bits of every byte moved right by kShift (left where negative) and cut to kMask.
template <int kShift, unsigned kMask>
WINNOW_INLINE Codes small_field(Codes v) {
  if constexpr (kShift > 0) v = vshrq_n_u8(v, kShift);
  if constexpr (kShift < 0) v = vshlq_n_u8(v, -kShift);
  return vandq_u8(v, vdupq_n_u8(kMask));
}
/// (byte >> shift) & mask in every byte; the shift may differ between halves or parts, of which
/// there is only the first here.
template <unsigned kShift, unsigned kMask>
WINNOW_INLINE Codes field(Codes v) {
  return small_field<static_cast<int>(kShift), kMask>(v);
}
template <int kLower, int kUpper, unsigned kMask>
WINNOW_INLINE Codes field_by_half(Codes v) {
  static_assert(kLower == kUpper);
  return small_field<kLower, kMask>(v);
}
template <int kFirst, int kStep, unsigned kMask>
WINNOW_INLINE Codes field_by_part(Codes v) {
  return small_field<kFirst, kMask>(v);
}
/// Even and odd 16 bytes of the 32 at p.
WINNOW_INLINE void load_alternate(const std::byte* p, Codes& even, Codes& odd) {
  even = load_codes(p);
  odd = load_codes(p + 16);
}
/// Byte j of part q is kValue where bit j of the 16 bits at p + q * kStride is set, else 0.
template <std::size_t kStride, int kValue>
WINNOW_INLINE Codes codes_of_bits(const std::byte* p) {
  const Codes bytes = vcombine_u8(vdup_n_u8(detail::load_as<std::uint8_t>(p)),
                                  vdup_n_u8(detail::load_as<std::uint8_t>(p + 1)));
  const Codes bits = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201ULL));
  return vandq_u8(vtstq_u8(bytes, bits), vdupq_n_u8(kValue));
}
WINNOW_INLINE Codes merge(Codes a, Codes b) { return vorrq_u8(a, b); }
/// table[code] for codes in [0, 16).
WINNOW_INLINE Codes look_up(const std::int8_t* table, Codes codes) {
  return vqtbl1q_u8(load_codes(table), codes);
}
/// The four bytes at p in every lane.
WINNOW_INLINE Codes broadcast_quad(const std::int8_t* p) {
  std::uint32_t quad = 0;
  std::memcpy(&quad, p, sizeof quad);
  return vreinterpretq_u8_u32(vdupq_n_u32(quad));
}
/// The compiler has to take `v` for changed and used.
WINNOW_INLINE void keep(Ints& v) { asm volatile("" : "+w"(v)); }

// --- 16 bytes: the small integer scales of super-blocks -----------------------------------------

using Bytes16 = uint8x16_t;

WINNOW_INLINE Bytes16 load_bytes16(const std::byte* p) { return load_codes(p); }
WINNOW_INLINE Bytes16 make_bytes16(std::uint64_t low, std::uint64_t high) {
  return vcombine_u8(vcreate_u8(low), vcreate_u8(high));
}
/// From one row's 16 bytes per register to four groups per register: byte 4 i + e of quads[k] is
/// byte 4 k + i of rows[e].
WINNOW_INLINE void interleave_rows(const Bytes16 (&rows)[4], Bytes16 (&quads)[4]) {
  const uint8x16x2_t ab = vzipq_u8(rows[0], rows[1]);
  const uint8x16x2_t cd = vzipq_u8(rows[2], rows[3]);
  for (std::size_t half = 0; half < 2; ++half) {
    const uint16x8x2_t both =
        vzipq_u16(vreinterpretq_u16_u8(ab.val[half]), vreinterpretq_u16_u8(cd.val[half]));
    quads[2 * half] = vreinterpretq_u8_u16(both.val[0]);
    quads[2 * half + 1] = vreinterpretq_u8_u16(both.val[1]);
  }
}
/// Lane r of rows[i] becomes lane i of columns[r]; lanes of 4 bytes. They may be the same.
WINNOW_INLINE void transpose(const Codes (&rows)[4], Codes (&columns)[4]) {
  const uint32x4x2_t ab = vzipq_u32(vreinterpretq_u32_u8(rows[0]), vreinterpretq_u32_u8(rows[1]));
  const uint32x4x2_t cd = vzipq_u32(vreinterpretq_u32_u8(rows[2]), vreinterpretq_u32_u8(rows[3]));
  for (std::size_t half = 0; half < 2; ++half) {
    const uint64x2_t low = vreinterpretq_u64_u32(ab.val[half]);
    const uint64x2_t high = vreinterpretq_u64_u32(cd.val[half]);
    columns[2 * half] = vreinterpretq_u8_u64(vzip1q_u64(low, high));
    columns[2 * half + 1] = vreinterpretq_u8_u64(vzip2q_u64(low, high));
  }
}
/// Word i of the 16 bytes at rows[e] becomes word e of columns[i]; words of 4 bytes.
WINNOW_INLINE void load_columns(const std::byte* const (&rows)[4], Bytes16 (&columns)[4]) {
  for (std::size_t e = 0; e < 4; ++e) columns[e] = load_bytes16(rows[e]);
  transpose(columns, columns);
}
/// Byte i of the result is byte order[i] of v.
WINNOW_INLINE Bytes16 permute(Bytes16 v, std::uint64_t low_order, std::uint64_t high_order) {
  return vqtbl1q_u8(v, make_bytes16(low_order, high_order));
}
/// Byte 4 e + i becomes byte 4 i + e.
WINNOW_INLINE Bytes16 transpose_bytes(Bytes16 v) {
  return permute(v, 0x0d0905010c080400, 0x0f0b07030e0a0602);
}
/// Both halves of four pairs of 16-bit words: the first of each pair, then the second of each.
WINNOW_INLINE Bytes16 split_pairs(Bytes16 v) {
  return permute(v, 0x0d0c090805040100, 0x0f0e0b0a07060302);
}
/// The low bits of `bits` at the set bits of `places`, in order; the places are the same in every
/// byte, and side by side.
WINNOW_INLINE std::uint64_t spread_bits(std::uint64_t bits, std::uint64_t places) {
  const std::uint64_t field = places & 0xff;
  const int shift = __builtin_ctzll(field);
  const int width = __builtin_popcountll(field);
  std::uint64_t spread = 0;
  for (int i = 0; i < 8; ++i) spread |= (bits >> (width * i) & (field >> shift)) << (8 * i + shift);
  return spread;
}

// --- four rows at a time: lane e belongs to row e -----------------------------------------------

/// The sums of the four lanes of each part.
WINNOW_INLINE Ints sum_parts(const Ints (&rows)[4]) {
  return vpaddq_s32(vpaddq_s32(rows[0], rows[1]), vpaddq_s32(rows[2], rows[3]));
}
/// The same where a lane, and for kPairsFit the sum of two, is below 2^15: nothing to gain here.
template <bool kPairsFit>
WINNOW_INLINE Ints sum_small_parts(const Ints (&rows)[4]) {
  return sum_parts(rows);
}
/// The four rows' totals, of one part each.
WINNOW_INLINE Floats add_parts(Floats v) { return v; }
WINNOW_INLINE Floats add_parts(const Floats (&parts)[kParts]) { return parts[0]; }
WINNOW_INLINE void store_four(float* p, Floats v) { store(p, v); }
/// One float from each row.
WINNOW_INLINE Floats floats_of_rows(const float* const (&rows)[4]) {
  Floats v = vld1q_dup_f32(rows[0]);
  v = vld1q_lane_f32(rows[1], v, 1);
  v = vld1q_lane_f32(rows[2], v, 2);
  return vld1q_lane_f32(rows[3], v, 3);
}
/// f16 at rows[e] + offset + q * kStride.
template <std::size_t kStride>
WINNOW_INLINE Floats halves_of_blocks(const std::byte* const (&rows)[4], std::size_t offset) {
  return from_halves(detail::four_halves(rows, offset));
}
/// f16 at rows[e] + offset, the same in all parts.
WINNOW_INLINE Floats halves_of_rows(const std::byte* const (&rows)[4], std::size_t offset) {
  return from_halves(detail::four_halves(rows, offset));
}
/// Four f16 of the low (or high) 8 bytes, the same in all parts.
WINNOW_INLINE void repeat_halves(Bytes16 v, Floats& low, Floats& high) {
  low = vcvt_f32_f16(vreinterpret_f16_u8(vget_low_u8(v)));
  high = vcvt_f32_f16(vreinterpret_f16_u8(vget_high_u8(v)));
}
/// The byte at rows[e] + q * kStride.
template <std::size_t kStride>
WINNOW_INLINE Ints bytes_of_blocks(const std::byte* const (&rows)[4]) {
  const uint16x8_t words = vmovl_u8(vcreate_u8(detail::four_bytes(rows, 0)));
  return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(words)));
}
/// 2^(exponent - 128) for exponents in [0, 255]; the lowest two are subnormal.
WINNOW_INLINE Floats powers_of_two(Ints exponents) {
  const Ints normal = vshlq_n_s32(vsubq_s32(exponents, vdupq_n_s32(1)), 23);
  const Ints subnormal = vshlq_s32(vdupq_n_s32(0x00200000), exponents);
  const uint32x4_t small = vcltq_s32(exponents, vdupq_n_s32(2));
  return vreinterpretq_f32_s32(vbslq_s32(small, subnormal, normal));
}
/// Signed bytes as floats: the four rows' bytes of group kGroup. `quads[k]` holds groups 4 k to
/// 4 k + 3 (see interleave_rows).
template <std::size_t kGroup>
WINNOW_INLINE Floats floats_of_groups(const Bytes16 (&quads)[4]) {
  const uint32x4_t words = vreinterpretq_u32_u8(quads[kGroup / 4]);
  const std::uint64_t four = vgetq_lane_u32(words, kGroup % 4);
  return to_floats(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four)))));
}
/// Part q of groups[g] becomes part g of groups[q]: there is one of each.
WINNOW_INLINE void transpose_parts(Floats (&/*groups*/)[kParts]) {}

}  // namespace winnow::kernels::neon_dotprod
WINNOW_END_TARGET

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The words of 64-bit Arm that only detail/attention.inl and detail/key_values.inl use.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/neon_dotprod/vocabulary.h"

WINNOW_BEGIN_TARGET(WINNOW_TARGET_NEON_DOTPROD)
namespace winnow::kernels::neon_dotprod {

/// Sums that a block of queries may hold in registers: with 4 queries' elements and one of a key or
/// value, 21 of 32.
inline constexpr std::size_t kAttentionSums = 16;

/// kLanes int8 codes, one to a lane.
WINNOW_INLINE Ints widen_codes(const std::byte* p) {
  const int16x8_t words = vmovl_s8(vcreate_s8(detail::load_as<std::uint32_t>(p)));
  return vmovl_s16(vget_low_s16(words));
}
/// kLanes floats as f16, to nearest even.
WINNOW_INLINE void store_f16(std::byte* p, Floats v) {
  const std::uint64_t four = vget_lane_u64(vreinterpret_u64_f16(vcvt_f16_f32(v)), 0);
  std::memcpy(p, &four, sizeof four);
}
/// One f16 on all lanes.
WINNOW_INLINE Floats broadcast_f16(const std::byte* p) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(detail::load_as<std::uint16_t>(p))));
}

}  // namespace winnow::kernels::neon_dotprod
WINNOW_END_TARGET

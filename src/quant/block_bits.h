// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Bit packing that several block layouts share: little-endian f16 fields, nibbles, bit planes, and
// the decoder that every integer codec gets from its `unpack`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "quant/codec.h"
#include "tensor/half.h"

namespace winnow::quant {

inline std::uint16_t load_u16(const std::byte* p) {
  return static_cast<std::uint16_t>(std::to_integer<unsigned>(p[0]) |
                                    (std::to_integer<unsigned>(p[1]) << 8));
}

inline void store_u16(std::uint16_t value, std::byte* p) {
  p[0] = static_cast<std::byte>(value & 0xffU);
  p[1] = static_cast<std::byte>(value >> 8);
}

inline float load_half(const std::byte* p) { return tensor::half_to_float(load_u16(p)); }

/// Bits [shift, shift + width) of each of `count` bytes, OR-ed into out[i] << out_shift.
inline void unpack_bits(const std::byte* bytes, std::size_t count, unsigned shift, unsigned width,
                        std::uint8_t* out, unsigned out_shift = 0) {
  const unsigned mask = (1U << width) - 1U;
  for (std::size_t i = 0; i < count; ++i) {
    const unsigned bits = (std::to_integer<unsigned>(bytes[i]) >> shift) & mask;
    out[i] = static_cast<std::uint8_t>(out[i] | (bits << out_shift));
  }
}

/// The inverse: ORs bits [in_shift, in_shift + width) of codes[i] into bytes[i] << shift.
inline void pack_bits(const std::uint8_t* codes, std::size_t count, unsigned shift, unsigned width,
                      std::byte* bytes, unsigned in_shift = 0) {
  const unsigned mask = (1U << width) - 1U;
  for (std::size_t i = 0; i < count; ++i) {
    bytes[i] |= static_cast<std::byte>(((codes[i] >> in_shift) & mask) << shift);
  }
}

/// `Codec::unpack` from a layout that can unpack one block:
/// Layout::{kBlock, kBytes}, Layout::unpack(const std::byte* block, IntegerForm out).
template <class Layout>
void unpack_blocks(const std::byte* blocks, std::size_t num_blocks, IntegerForm out) noexcept {
  constexpr std::size_t kGroups = Layout::kBlock / IntegerForm::kGroup;
  for (std::size_t b = 0; b < num_blocks; ++b) {
    Layout::unpack(blocks + b * Layout::kBytes,
                   {out.codes + b * Layout::kBlock, out.scales + b * kGroups,
                    Layout::kHasOffsets ? out.offsets + b * kGroups : nullptr});
  }
}

/// `Codec::decode`. The published layouts define w as (scale * code) - offset with each product
/// and difference rounded to f32, and the scale of a sub-block as the rounded product of the
/// block's scale with an integer: the integer form, evaluated in f32, is that definition bit for
/// bit.
template <class Layout>
void decode_blocks(const std::byte* blocks, std::size_t num_blocks, float* out) noexcept {
  constexpr std::size_t kGroup = IntegerForm::kGroup;
  std::int8_t codes[Layout::kBlock];
  float scales[Layout::kBlock / kGroup];
  float offsets[Layout::kBlock / kGroup];
  for (std::size_t b = 0; b < num_blocks; ++b, out += Layout::kBlock) {
    Layout::unpack(blocks + b * Layout::kBytes, {codes, scales, offsets});
    for (std::size_t j = 0; j < Layout::kBlock; ++j) {
      out[j] = scales[j / kGroup] * static_cast<float>(codes[j]);
      if constexpr (Layout::kHasOffsets) out[j] -= offsets[j / kGroup];
    }
  }
}

}  // namespace winnow::quant

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The layout of Q4_K and Q5_K: super-blocks of 256 weights, 8 sub-blocks of 32, w = d * s * q -
// dmin * m. Bytes: f16 d; f16 dmin; 12 with the 6-bit s and m; 32 of fifth bits (Q5_K only; bit p
// of byte l: weight 32 p + l); 128 of nibbles (each 64 weights: 32 bytes, low nibbles the first
// 32). Of the 12 bytes, 0..3 hold s 0..3, 4..7 m 0..3, and 8..11 the lower nibbles of s 4..7 and
// m 4..7 (high nibble), whose upper two bits are the upper bits of bytes 0..3 and 4..7.
#pragma once

#include "quant/affine_super_block.h"
#include "quant/block_bits.h"

namespace winnow::quant {

template <int Bits>
struct MinSuperBlock {
  static_assert(Bits == 4 || Bits == 5);
  using Levels = UniformLevels<0, (1 << Bits) - 1>;
  static constexpr std::size_t kBlock = kSuperBlock;
  static constexpr std::size_t kSubSize = 32;
  static constexpr std::size_t kCount = kBlock / kSubSize;
  static constexpr float kScaleHigh = 63;
  static constexpr bool kHasOffsets = true;
  static constexpr std::size_t kScales = 4;
  static constexpr std::size_t kHighCodes = 16;
  static constexpr std::size_t kNibbles = kHighCodes + (Bits == 5 ? 32 : 0);
  static constexpr std::size_t kBytes = kNibbles + kBlock / 2;

  static void unpack(const std::byte* block, IntegerForm out) {
    unpack_scales(block, out);
    std::uint8_t codes[kBlock] = {};
    for (unsigned k = 0; k < kCount; ++k) {
      unpack_bits(block + kNibbles + 32 * (k / 2), 32, 4 * (k % 2), 4, codes + 32 * k);
      if constexpr (Bits == 5) unpack_bits(block + kHighCodes, 32, k, 1, codes + 32 * k, 4);
    }
    for (std::size_t j = 0; j < kBlock; ++j) out.codes[j] = Levels::code(codes[j]);
  }

  static void pack(const BlockParameters& in, std::byte* block) {
    std::memset(block, 0, kBytes);
    store_u16(in.scale, block);
    store_u16(in.min_scale, block + 2);
    pack_scales(in, block + kScales);
    for (unsigned k = 0; k < kCount; ++k) {
      pack_bits(in.codes + 32 * k, 32, 4 * (k % 2), 4, block + kNibbles + 32 * (k / 2));
      if constexpr (Bits == 5) pack_bits(in.codes + 32 * k, 32, k, 1, block + kHighCodes, 4);
    }
  }

 private:
  static void unpack_scales(const std::byte* block, IntegerForm out) {
    const float d = load_half(block);
    const float min_scale = load_half(block + 2);
    unsigned bytes[12];
    for (std::size_t i = 0; i < 12; ++i) bytes[i] = std::to_integer<unsigned>(block[kScales + i]);
    for (std::size_t k = 0; k < kCount; ++k) {
      const std::size_t i = k % 4;
      const bool first_half = k < 4;
      const unsigned s =
          first_half ? bytes[i] & 63U : (bytes[8 + i] & 15U) | ((bytes[i] >> 6) << 4);
      const unsigned m =
          first_half ? bytes[4 + i] & 63U : (bytes[8 + i] >> 4) | ((bytes[4 + i] >> 6) << 4);
      out.scales[2 * k] = out.scales[2 * k + 1] = d * static_cast<float>(s);
      out.offsets[2 * k] = out.offsets[2 * k + 1] = min_scale * static_cast<float>(m);
    }
  }

  static void pack_scales(const BlockParameters& in, std::byte* bytes) {
    for (std::size_t i = 0; i < 4; ++i) {
      const auto s = static_cast<unsigned>(in.scales[i]);
      const auto m = static_cast<unsigned>(in.mins[i]);
      const auto late_s = static_cast<unsigned>(in.scales[4 + i]);
      const auto late_m = static_cast<unsigned>(in.mins[4 + i]);
      bytes[i] = static_cast<std::byte>(s | ((late_s >> 4) << 6));
      bytes[4 + i] = static_cast<std::byte>(m | ((late_m >> 4) << 6));
      bytes[8 + i] = static_cast<std::byte>((late_s & 15U) | ((late_m & 15U) << 4));
    }
  }
};

}  // namespace winnow::quant

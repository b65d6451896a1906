// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The layout family Q4_0, Q4_1, Q5_0, Q5_1: blocks of 32 weights, in this order:
//   f16 scale d; f16 base m (the _1 types); 32 fifth bits, little-endian (the Q5 types);
//   16 bytes whose low nibbles are codes 0..15 and high nibbles codes 16..31.
// _0: w = d * (q - 2^(bits-1)). _1: w = d * q + m.
#pragma once

#include <type_traits>

#include "quant/block_bits.h"
#include "quant/one_level.h"

namespace winnow::quant {

template <int Bits, bool WithBase>
struct NibbleBlock {
  static_assert(Bits == 4 || Bits == 5);
  using Levels = std::conditional_t<WithBase, UniformLevels<0, (1 << Bits) - 1>,
                                    UniformLevels<-(1 << (Bits - 1)), (1 << (Bits - 1)) - 1>>;
  static constexpr std::size_t kBlock = kSmallBlock;
  static constexpr bool kHasOffsets = WithBase;
  static constexpr std::size_t kHighBits = WithBase ? 4 : 2;  ///< offset in the block
  static constexpr std::size_t kNibbles = kHighBits + (Bits == 5 ? 4 : 0);
  static constexpr std::size_t kBytes = kNibbles + kBlock / 2;

  static void unpack(const std::byte* block, IntegerForm out) {
    std::uint8_t codes[kBlock] = {};
    unpack_bits(block + kNibbles, kBlock / 2, 0, 4, codes);
    unpack_bits(block + kNibbles, kBlock / 2, 4, 4, codes + kBlock / 2);
    for (std::size_t j = 0; j < kBlock; ++j) {
      if constexpr (Bits == 5) {
        const unsigned byte = std::to_integer<unsigned>(block[kHighBits + j / 8]);
        codes[j] = static_cast<std::uint8_t>(codes[j] | (((byte >> (j % 8)) & 1U) << 4));
      }
      out.codes[j] = Levels::code(codes[j]);
    }
    out.scales[0] = out.scales[1] = load_half(block);
    if constexpr (WithBase) out.offsets[0] = out.offsets[1] = -load_half(block + 2);
  }

  static void pack(const BlockParameters& in, std::byte* block) {
    std::memset(block, 0, kBytes);
    store_u16(in.scale, block);
    if constexpr (WithBase) store_u16(negated_half(in.min_scale), block + 2);
    pack_bits(in.codes, kBlock / 2, 0, 4, block + kNibbles);
    pack_bits(in.codes + kBlock / 2, kBlock / 2, 4, 4, block + kNibbles);
    if constexpr (Bits == 5) {
      for (std::size_t j = 0; j < kBlock; ++j) {
        block[kHighBits + j / 8] |= static_cast<std::byte>((in.codes[j] >> 4) << (j % 8));
      }
    }
  }
};

}  // namespace winnow::quant

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// IQ4_XS: super-blocks of 256 weights, 8 sub-blocks of 32. w = d * (s - 32) * T[index], T the table
// of CurvedLevels. Bytes: f16 d; u16 with the upper 2 bits of the 6-bit scales s, two a sub-block;
// 4 bytes with their lower nibbles; 8 x 16 bytes of indices, nibbles as in IQ4_NL.
#include "quant/block_bits.h"
#include "quant/symmetric_super_block.h"

namespace winnow::quant {
namespace {

struct Layout {
  using Levels = CurvedLevels;
  static constexpr std::size_t kBlock = kSuperBlock;
  static constexpr std::size_t kSubSize = 32;
  static constexpr float kScaleLow = -32;
  static constexpr float kScaleHigh = 31;
  static constexpr bool kHasOffsets = false;
  static constexpr std::size_t kHighBits = 2;
  static constexpr std::size_t kLowBits = 4;
  static constexpr std::size_t kIndices = 8;
  static constexpr std::size_t kBytes = kIndices + kBlock / 2;

  static void unpack(const std::byte* block, IntegerForm out) {
    const float d = load_half(block);
    const unsigned high_bits = load_u16(block + kHighBits);
    for (std::size_t k = 0; k < kBlock / kSubSize; ++k) {
      const unsigned low = std::to_integer<unsigned>(block[kLowBits + k / 2]) >> (4 * (k % 2));
      const unsigned scale = (low & 15U) | (((high_bits >> (2 * k)) & 3U) << 4);
      out.scales[2 * k] = out.scales[2 * k + 1] =
          d * static_cast<float>(static_cast<int>(scale) - 32);
      std::uint8_t indices[kSubSize] = {};
      unpack_bits(block + kIndices + 16 * k, 16, 0, 4, indices);
      unpack_bits(block + kIndices + 16 * k, 16, 4, 4, indices + 16);
      for (std::size_t j = 0; j < kSubSize; ++j)
        out.codes[k * kSubSize + j] = Levels::code(indices[j]);
    }
  }

  static void pack(const BlockParameters& in, std::byte* block) {
    std::memset(block, 0, kBytes);
    store_u16(in.scale, block);
    unsigned high_bits = 0;
    for (std::size_t k = 0; k < kBlock / kSubSize; ++k) {
      const auto scale = static_cast<unsigned>(in.scales[k] + 32);
      block[kLowBits + k / 2] |= static_cast<std::byte>((scale & 15U) << (4 * (k % 2)));
      high_bits |= (scale >> 4) << (2 * k);
      pack_bits(in.codes + k * kSubSize, 16, 0, 4, block + kIndices + 16 * k);
      pack_bits(in.codes + k * kSubSize + 16, 16, 4, 4, block + kIndices + 16 * k);
    }
    store_u16(static_cast<std::uint16_t>(high_bits), block + kHighBits);
  }
};

using Encoder = BlockEncoder<Layout, search_symmetric_super_block<Layout>>;

}  // namespace

extern const Codec kIq4Xs{.name = "IQ4_XS",
                          .ggml_type = 23,
                          .file_type = 30,
                          .block_size = Layout::kBlock,
                          .block_bytes = Layout::kBytes,
                          .fallback = "IQ4_NL",
                          .decode = decode_blocks<Layout>,
                          .encode = Encoder::encode,
                          .unpack = unpack_blocks<Layout>,
                          .has_offsets = Layout::kHasOffsets,
                          .grid = &Encoder::kGrid};

}  // namespace winnow::quant

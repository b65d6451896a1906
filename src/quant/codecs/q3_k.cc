// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Q3_K: super-blocks of 256 weights, 16 sub-blocks of 16. w = d * (s - 32) * q, q in -4..3.
// Bytes: 32 with the third bits of q + 4 (bit p of byte l: weight 32 p + l); 64 with the lower two;
// 12 with the 6-bit scales s: the low nibbles of bytes 0..7 are those of s 0..7, the high nibbles
// those of s 8..15, and bytes 8..11 hold the upper bits of s k, k + 4, k + 8, k + 12; f16 d.
#include "quant/symmetric_super_block.h"
#include "quant/two_bit_planes.h"

namespace winnow::quant {
namespace {

struct Layout {
  using Levels = UniformLevels<-4, 3>;
  static constexpr std::size_t kBlock = kSuperBlock;
  static constexpr std::size_t kSubSize = 16;
  static constexpr float kScaleLow = -32;
  static constexpr float kScaleHigh = 31;
  static constexpr bool kHasOffsets = false;
  static constexpr std::size_t kLowCodes = 32;
  static constexpr std::size_t kScales = 96;
  static constexpr std::size_t kScale = 108;
  static constexpr std::size_t kBytes = 110;

  static void unpack(const std::byte* block, IntegerForm out) {
    const float d = load_half(block + kScale);
    const std::byte* scales = block + kScales;
    for (std::size_t k = 0; k < kBlock / kSubSize; ++k) {
      const unsigned low = std::to_integer<unsigned>(scales[k % 8]) >> (4 * (k / 8));
      const unsigned high = std::to_integer<unsigned>(scales[8 + k % 4]) >> (2 * (k / 4));
      const auto scale = static_cast<int>((low & 15U) | ((high & 3U) << 4));
      out.scales[k] = d * static_cast<float>(scale - 32);
    }
    std::uint8_t codes[kBlock] = {};
    unpack_two_bit_planes(block + kLowCodes, codes);
    for (unsigned plane = 0; plane < 8; ++plane)
      unpack_bits(block, 32, plane, 1, codes + 32 * plane, 2);
    for (std::size_t j = 0; j < kBlock; ++j) out.codes[j] = Levels::code(codes[j]);
  }

  static void pack(const BlockParameters& in, std::byte* block) {
    std::memset(block, 0, kBytes);
    store_u16(in.scale, block + kScale);
    std::byte* scales = block + kScales;
    for (std::size_t k = 0; k < kBlock / kSubSize; ++k) {
      const auto scale = static_cast<unsigned>(in.scales[k] + 32);
      scales[k % 8] |= static_cast<std::byte>((scale & 15U) << (4 * (k / 8)));
      scales[8 + k % 4] |= static_cast<std::byte>((scale >> 4) << (2 * (k / 4)));
    }
    pack_two_bit_planes(in.codes, block + kLowCodes);
    for (unsigned plane = 0; plane < 8; ++plane)
      pack_bits(in.codes + 32 * plane, 32, plane, 1, block, 2);
  }
};

using Encoder = BlockEncoder<Layout, search_symmetric_super_block<Layout>>;

}  // namespace

extern const Codec kQ3K{.name = "Q3_K",
                        .ggml_type = 11,
                        .file_type = 12,
                        .block_size = Layout::kBlock,
                        .block_bytes = Layout::kBytes,
                        .fallback = "IQ4_NL",
                        .decode = decode_blocks<Layout>,
                        .encode = Encoder::encode,
                        .unpack = unpack_blocks<Layout>,
                        .has_offsets = Layout::kHasOffsets,
                        .grid = &Encoder::kGrid};

}  // namespace winnow::quant

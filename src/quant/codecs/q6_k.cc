// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Q6_K: super-blocks of 256 weights, 16 sub-blocks of 16. w = d * s * (q - 32), q in 0..63.
// Bytes: 128 with the lower nibbles of q (each half of the super-block: 64 bytes, low nibbles
// weights 0..63 of it, high nibbles 64..127); 64 with the upper two bits; 16 int8 scales s; f16 d.
#include "quant/symmetric_super_block.h"
#include "quant/two_bit_planes.h"

namespace winnow::quant {
namespace {

struct Layout {
  using Levels = UniformLevels<-32, 31>;
  static constexpr std::size_t kBlock = kSuperBlock;
  static constexpr std::size_t kSubSize = 16;
  static constexpr float kScaleLow = -128;
  static constexpr float kScaleHigh = 127;
  static constexpr bool kHasOffsets = false;
  static constexpr std::size_t kHighCodes = 128;
  static constexpr std::size_t kScales = 192;
  static constexpr std::size_t kScale = 208;
  static constexpr std::size_t kBytes = 210;

  static void unpack(const std::byte* block, IntegerForm out) {
    const float d = load_half(block + kScale);
    for (std::size_t k = 0; k < kBlock / kSubSize; ++k) {
      out.scales[k] = d * static_cast<float>(static_cast<std::int8_t>(block[kScales + k]));
    }
    std::uint8_t codes[kBlock] = {};
    for (unsigned quarter = 0; quarter < 4; ++quarter) {
      unpack_bits(block + 64 * (quarter / 2), 64, 4 * (quarter % 2), 4, codes + 64 * quarter);
    }
    unpack_two_bit_planes(block + kHighCodes, codes, 4);
    for (std::size_t j = 0; j < kBlock; ++j) out.codes[j] = Levels::code(codes[j]);
  }

  static void pack(const BlockParameters& in, std::byte* block) {
    std::memset(block, 0, kBytes);
    for (unsigned quarter = 0; quarter < 4; ++quarter) {
      pack_bits(in.codes + 64 * quarter, 64, 4 * (quarter % 2), 4, block + 64 * (quarter / 2));
    }
    pack_two_bit_planes(in.codes, block + kHighCodes, 4);
    std::memcpy(block + kScales, in.scales, kBlock / kSubSize);
    store_u16(in.scale, block + kScale);
  }
};

using Encoder = BlockEncoder<Layout, search_symmetric_super_block<Layout>>;

}  // namespace

extern const Codec kQ6K{.name = "Q6_K",
                        .ggml_type = 14,
                        .file_type = 18,
                        .block_size = Layout::kBlock,
                        .block_bytes = Layout::kBytes,
                        .fallback = "Q8_0",
                        .decode = decode_blocks<Layout>,
                        .encode = Encoder::encode,
                        .unpack = unpack_blocks<Layout>,
                        .has_offsets = Layout::kHasOffsets,
                        .grid = &Encoder::kGrid};

}  // namespace winnow::quant

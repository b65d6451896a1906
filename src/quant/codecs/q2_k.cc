// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Q2_K: super-blocks of 256 weights, 16 sub-blocks of 16. w = d * s * q - dmin * m, q in 0..3.
// Bytes: 16 with the 4-bit s (low nibble) and m of each sub-block; 64 of codes; f16 d; f16 dmin.
#include "quant/affine_super_block.h"
#include "quant/two_bit_planes.h"

namespace winnow::quant {
namespace {

struct Layout {
  using Levels = UniformLevels<0, 3>;
  static constexpr std::size_t kBlock = kSuperBlock;
  static constexpr std::size_t kSubSize = 16;
  static constexpr float kScaleHigh = 15;
  static constexpr bool kHasOffsets = true;
  static constexpr std::size_t kCodes = 16;
  static constexpr std::size_t kScale = 80;
  static constexpr std::size_t kMinScale = 82;
  static constexpr std::size_t kBytes = 84;

  static void unpack(const std::byte* block, IntegerForm out) {
    const float d = load_half(block + kScale);
    const float min_scale = load_half(block + kMinScale);
    for (std::size_t k = 0; k < kBlock / kSubSize; ++k) {
      const auto both = std::to_integer<unsigned>(block[k]);
      out.scales[k] = d * static_cast<float>(both & 15U);
      out.offsets[k] = min_scale * static_cast<float>(both >> 4);
    }
    std::uint8_t codes[kBlock] = {};
    unpack_two_bit_planes(block + kCodes, codes);
    for (std::size_t j = 0; j < kBlock; ++j) out.codes[j] = Levels::code(codes[j]);
  }

  static void pack(const BlockParameters& in, std::byte* block) {
    std::memset(block, 0, kBytes);
    for (std::size_t k = 0; k < kBlock / kSubSize; ++k) {
      block[k] = static_cast<std::byte>(in.scales[k] | (in.mins[k] << 4));
    }
    pack_two_bit_planes(in.codes, block + kCodes);
    store_u16(in.scale, block + kScale);
    store_u16(in.min_scale, block + kMinScale);
  }
};

using Encoder = BlockEncoder<Layout, search_affine_super_block<Layout>>;

}  // namespace

extern const Codec kQ2K{.name = "Q2_K",
                        .ggml_type = 10,
                        .file_type = 10,
                        .block_size = Layout::kBlock,
                        .block_bytes = Layout::kBytes,
                        .fallback = "IQ4_NL",
                        .decode = decode_blocks<Layout>,
                        .encode = Encoder::encode,
                        .unpack = unpack_blocks<Layout>,
                        .has_offsets = Layout::kHasOffsets,
                        .grid = &Encoder::kGrid};

}  // namespace winnow::quant

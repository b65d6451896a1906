// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// IQ4_NL: blocks of 32 weights; f16 scale d, then 16 bytes whose low nibbles are the indices of
// weights 0..15 and high nibbles of 16..31. w = d * T[index], T the table of CurvedLevels.
#include "quant/block_bits.h"
#include "quant/one_level.h"

namespace winnow::quant {
namespace {

struct Layout {
  using Levels = CurvedLevels;
  static constexpr std::size_t kBlock = kSmallBlock;
  static constexpr std::size_t kBytes = 2 + kBlock / 2;
  static constexpr bool kHasOffsets = false;

  static void unpack(const std::byte* block, IntegerForm out) {
    std::uint8_t indices[kBlock] = {};
    unpack_bits(block + 2, kBlock / 2, 0, 4, indices);
    unpack_bits(block + 2, kBlock / 2, 4, 4, indices + kBlock / 2);
    for (std::size_t j = 0; j < kBlock; ++j) out.codes[j] = Levels::code(indices[j]);
    out.scales[0] = out.scales[1] = load_half(block);
  }

  static void pack(const BlockParameters& in, std::byte* block) {
    std::memset(block, 0, kBytes);
    store_u16(in.scale, block);
    pack_bits(in.codes, kBlock / 2, 0, 4, block + 2);
    pack_bits(in.codes + kBlock / 2, kBlock / 2, 4, 4, block + 2);
  }
};

using Encoder = BlockEncoder<Layout, search_symmetric_block<Layout::Levels>>;

}  // namespace

extern const Codec kIq4Nl{.name = "IQ4_NL",
                          .ggml_type = 20,
                          .file_type = 25,
                          .block_size = Layout::kBlock,
                          .block_bytes = Layout::kBytes,
                          .fallback = "F16",
                          .decode = decode_blocks<Layout>,
                          .encode = Encoder::encode,
                          .unpack = unpack_blocks<Layout>,
                          .has_offsets = Layout::kHasOffsets,
                          .grid = &Encoder::kGrid};

}  // namespace winnow::quant

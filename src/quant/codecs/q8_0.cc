// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Q8_0: blocks of 32 weights; f16 scale d, then 32 int8 codes q. w = d * q.
#include "quant/block_bits.h"
#include "quant/one_level.h"

namespace winnow::quant {
namespace {

struct Layout {
  /// -128 is left out: kernels that multiply magnitudes need |q| <= 127.
  using Levels = UniformLevels<-127, 127>;
  static constexpr std::size_t kBlock = kSmallBlock;
  static constexpr std::size_t kBytes = 2 + kBlock;
  static constexpr bool kHasOffsets = false;

  static void unpack(const std::byte* block, IntegerForm out) {
    std::memcpy(out.codes, block + 2, kBlock);
    out.scales[0] = out.scales[1] = load_half(block);
  }

  static void pack(const BlockParameters& in, std::byte* block) {
    store_u16(in.scale, block);
    for (std::size_t j = 0; j < kBlock; ++j) {
      block[2 + j] = static_cast<std::byte>(Levels::code(in.codes[j]));
    }
  }
};

using Encoder = BlockEncoder<Layout, search_symmetric_block<Layout::Levels>>;

}  // namespace

extern const Codec kQ8_0{.name = "Q8_0",
                         .ggml_type = 8,
                         .file_type = 7,
                         .block_size = Layout::kBlock,
                         .block_bytes = Layout::kBytes,
                         .fallback = "F16",
                         .decode = decode_blocks<Layout>,
                         .encode = Encoder::encode,
                         .unpack = unpack_blocks<Layout>,
                         .has_offsets = Layout::kHasOffsets,
                         .grid = &Encoder::kGrid};

}  // namespace winnow::quant

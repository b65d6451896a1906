// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// IQ2_XXS: super-blocks of 256 weights, 8 sub-blocks of 32. w = d / 8 * (2 s + 1) * sign * point.
// Bytes: f16 d; for each sub-block the points of its 4 groups of 8, one byte each, and a u32 with
// the signs of each group in 7 bits (the eighth makes the number of minus signs even), then s in 4.
#include "quant/codebook_layout.h"

namespace winnow::quant {
namespace {

struct Layout {
  using Book = Iq2XxsBook;
  using Levels = SignedLevels<Book>;
  static constexpr std::size_t kBlock = kSuperBlock;
  static constexpr std::size_t kSubSize = 32;
  static constexpr bool kHasOffsets = false;
  static constexpr bool kEvenSigns = true;
  static constexpr int kScaleHigh = 31;
  static constexpr Codebook kCodebook = describe_codebook<Book, kEvenSigns>();
  static constexpr float kUnit = 0.125F;
  static constexpr float kUsual = 21.0F;
  static constexpr std::size_t kSubBytes = 8;
  static constexpr std::size_t kBytes = 2 + kBlock / kSubSize * kSubBytes;

  static void unpack(const std::byte* block, IntegerForm out) {
    const float step = kUnit * load_half(block);
    for (std::size_t k = 0; k < kBlock / kSubSize; ++k) {
      const std::byte* points = block + 2 + k * kSubBytes;
      const std::uint32_t rest = load_u32(points + 4);
      out.scales[2 * k] = out.scales[2 * k + 1] = step * static_cast<float>(2 * (rest >> 28) + 1);
      for (std::size_t g = 0; g < kSubSize / Book::kGroup; ++g) {
        unpack_point<Book>(std::to_integer<std::size_t>(points[g]),
                           even_signs((rest >> (7 * g)) & 127U),
                           out.codes + k * kSubSize + g * Book::kGroup);
      }
    }
  }

  static void pack(const BlockParameters& in, std::byte* block) {
    store_u16(in.scale, block);
    for (std::size_t k = 0; k < kBlock / kSubSize; ++k) {
      std::byte* points = block + 2 + k * kSubBytes;
      std::uint32_t rest = stored_integer(in.scales[k]) << 28;
      for (std::size_t g = 0; g < kSubSize / Book::kGroup; ++g) {
        const std::uint8_t* codes = in.codes + k * kSubSize + g * Book::kGroup;
        points[g] = static_cast<std::byte>(Book::point_of_codes(codes));
        rest |= (signs_of<Book>(codes) & 127U) << (7 * g);
      }
      store_u32(rest, points + 4);
    }
  }
};

using Encoder = BlockEncoder<Layout, search_codebook_super_block<Layout>>;

}  // namespace

extern const Codec kIq2Xxs{.name = "IQ2_XXS",
                           .ggml_type = 16,
                           .file_type = 19,
                           .block_size = Layout::kBlock,
                           .block_bytes = Layout::kBytes,
                           .fallback = "IQ4_NL",
                           .decode = decode_blocks<Layout>,
                           .encode = Encoder::encode,
                           .unpack = unpack_blocks<Layout>,
                           .has_offsets = Layout::kHasOffsets,
                           .grid = &Encoder::kGrid};

}  // namespace winnow::quant

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// IQ3_XXS: super-blocks of 256 weights, 8 sub-blocks of 32. w = d / 4 * (2 s + 1) * sign * point.
// Bytes: f16 d; the points of the 64 groups of 4, one byte each; for each sub-block a u32 with the
// signs of 8 weights at a time in 7 bits (the eighth makes the number of minus signs even), then s
// in 4.
#include "quant/codebook_layout.h"

namespace winnow::quant {
namespace {

struct Layout {
  using Book = Iq3XxsBook;
  using Levels = SignedLevels<Book>;
  static constexpr std::size_t kBlock = kSuperBlock;
  static constexpr std::size_t kSubSize = 32;
  static constexpr bool kHasOffsets = false;
  static constexpr bool kEvenSigns = true;
  static constexpr int kScaleHigh = 31;
  static constexpr Codebook kCodebook = describe_codebook<Book, kEvenSigns>();
  static constexpr float kUnit = 0.25F;
  static constexpr float kUsual = 27.0F;
  static constexpr std::size_t kSigns = 2 + kBlock / Book::kGroup;
  static constexpr std::size_t kBytes = kSigns + kBlock / kSubSize * 4;

  static void unpack(const std::byte* block, IntegerForm out) {
    const float step = kUnit * load_half(block);
    for (std::size_t k = 0; k < kBlock / kSubSize; ++k) {
      const std::uint32_t rest = load_u32(block + kSigns + 4 * k);
      out.scales[2 * k] = out.scales[2 * k + 1] = step * static_cast<float>(2 * (rest >> 28) + 1);
      for (std::size_t i = 0; i < kSubSize / kSignGroup; ++i) {
        const std::size_t first = k * kSubSize + i * kSignGroup;
        const std::byte* points = block + 2 + first / Book::kGroup;
        const unsigned signs = even_signs((rest >> (7 * i)) & 127U);
        unpack_point<Book>(std::to_integer<std::size_t>(points[0]), signs, out.codes + first);
        unpack_point<Book>(std::to_integer<std::size_t>(points[1]), signs >> Book::kGroup,
                           out.codes + first + Book::kGroup);
      }
    }
  }

  static void pack(const BlockParameters& in, std::byte* block) {
    store_u16(in.scale, block);
    for (std::size_t g = 0; g < kBlock / Book::kGroup; ++g) {
      const std::size_t point = Book::point_of_codes(in.codes + g * Book::kGroup);
      block[2 + g] = static_cast<std::byte>(point);
    }
    for (std::size_t k = 0; k < kBlock / kSubSize; ++k) {
      std::uint32_t rest = stored_integer(in.scales[k]) << 28;
      for (std::size_t i = 0; i < kSubSize / kSignGroup; ++i) {
        const unsigned signs = signs_of<Book>(in.codes + k * kSubSize + i * kSignGroup);
        rest |= (signs & 127U) << (7 * i);
      }
      store_u32(rest, block + kSigns + 4 * k);
    }
  }
};

using Encoder = BlockEncoder<Layout, search_codebook_super_block<Layout>>;

}  // namespace

extern const Codec kIq3Xxs{.name = "IQ3_XXS",
                           .ggml_type = 18,
                           .file_type = 23,
                           .block_size = Layout::kBlock,
                           .block_bytes = Layout::kBytes,
                           .fallback = "IQ4_NL",
                           .decode = decode_blocks<Layout>,
                           .encode = Encoder::encode,
                           .unpack = unpack_blocks<Layout>,
                           .has_offsets = Layout::kHasOffsets,
                           .grid = &Encoder::kGrid};

}  // namespace winnow::quant

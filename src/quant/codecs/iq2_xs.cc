// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// IQ2_XS: super-blocks of 256 weights, 16 sub-blocks of 16. w = d / 8 * (2 s + 1) * sign * point.
// Bytes: f16 d; a u16 for each group of 8 weights, its point in 9 bits and its signs in 7 (the
// eighth makes the number of minus signs even); 8 with the nibbles s, the lower one first.
#include "quant/codebook_layout.h"

namespace winnow::quant {
namespace {

struct Layout {
  using Book = Iq2XsBook;
  using Levels = SignedLevels<Book>;
  static constexpr std::size_t kBlock = kSuperBlock;
  static constexpr std::size_t kSubSize = 16;
  static constexpr bool kHasOffsets = false;
  static constexpr bool kEvenSigns = true;
  static constexpr int kScaleHigh = 31;
  static constexpr Codebook kCodebook = describe_codebook<Book, kEvenSigns>();
  static constexpr float kUnit = 0.125F;
  static constexpr float kUsual = 21.0F;
  static constexpr std::size_t kGroups = kBlock / Book::kGroup;
  static constexpr std::size_t kScales = 2 + 2 * kGroups;
  static constexpr std::size_t kBytes = kScales + kBlock / kSubSize / 2;

  static void unpack(const std::byte* block, IntegerForm out) {
    const float step = kUnit * load_half(block);
    for (std::size_t k = 0; k < kBlock / kSubSize; ++k)
      out.scales[k] = odd_scale(block + kScales, k, step);
    for (std::size_t g = 0; g < kGroups; ++g) {
      const unsigned word = load_u16(block + 2 + 2 * g);
      unpack_point<Book>(word & 511U, even_signs(word >> 9), out.codes + g * Book::kGroup);
    }
  }

  static void pack(const BlockParameters& in, std::byte* block) {
    std::memset(block, 0, kBytes);
    store_u16(in.scale, block);
    for (std::size_t k = 0; k < kBlock / kSubSize; ++k)
      store_odd_scale(in.scales[k], block + kScales, k);
    for (std::size_t g = 0; g < kGroups; ++g) {
      const std::uint8_t* codes = in.codes + g * Book::kGroup;
      const std::size_t word = Book::point_of_codes(codes) | ((signs_of<Book>(codes) & 127U) << 9);
      store_u16(static_cast<std::uint16_t>(word), block + 2 + 2 * g);
    }
  }
};

using Encoder = BlockEncoder<Layout, search_codebook_super_block<Layout>>;

}  // namespace

extern const Codec kIq2Xs{.name = "IQ2_XS",
                          .ggml_type = 17,
                          .file_type = 20,
                          .block_size = Layout::kBlock,
                          .block_bytes = Layout::kBytes,
                          .fallback = "IQ4_NL",
                          .decode = decode_blocks<Layout>,
                          .encode = Encoder::encode,
                          .unpack = unpack_blocks<Layout>,
                          .has_offsets = Layout::kHasOffsets,
                          .grid = &Encoder::kGrid};

}  // namespace winnow::quant

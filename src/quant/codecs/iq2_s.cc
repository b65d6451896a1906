// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// IQ2_S: super-blocks of 256 weights, 16 sub-blocks of 16. w = d / 8 * (2 s + 1) * sign * point.
// Bytes: f16 d; for each of 32 groups of 8 weights the lower 8 bits of its point; for each its
// signs; 8 with the upper 2 bits of the points, four groups a byte; 8 with the nibbles s. The
// first of several in a byte is in the lowest bits.
#include "quant/codebook_layout.h"

namespace winnow::quant {
namespace {

struct Layout {
  using Book = Iq2SBook;
  using Levels = SignedLevels<Book>;
  static constexpr std::size_t kBlock = kSuperBlock;
  static constexpr std::size_t kSubSize = 16;
  static constexpr bool kHasOffsets = false;
  static constexpr bool kEvenSigns = false;
  static constexpr int kScaleHigh = 31;
  static constexpr Codebook kCodebook = describe_codebook<Book, kEvenSigns>();
  static constexpr float kUnit = 0.125F;
  static constexpr float kUsual = 21.0F;
  static constexpr std::size_t kGroups = kBlock / Book::kGroup;
  static constexpr std::size_t kSigns = 2 + kGroups;
  static constexpr std::size_t kHighBits = kSigns + kGroups;
  static constexpr std::size_t kScales = kHighBits + kGroups / 4;
  static constexpr std::size_t kBytes = kScales + kBlock / kSubSize / 2;

  static void unpack(const std::byte* block, IntegerForm out) {
    const float step = kUnit * load_half(block);
    for (std::size_t k = 0; k < kBlock / kSubSize; ++k)
      out.scales[k] = odd_scale(block + kScales, k, step);
    for (std::size_t g = 0; g < kGroups; ++g) {
      const unsigned high = std::to_integer<unsigned>(block[kHighBits + g / 4]) >> (2 * (g % 4));
      const unsigned point = std::to_integer<unsigned>(block[2 + g]) | ((high & 3U) << 8);
      unpack_point<Book>(point, std::to_integer<unsigned>(block[kSigns + g]),
                         out.codes + g * Book::kGroup);
    }
  }

  static void pack(const BlockParameters& in, std::byte* block) {
    std::memset(block, 0, kBytes);
    store_u16(in.scale, block);
    for (std::size_t k = 0; k < kBlock / kSubSize; ++k)
      store_odd_scale(in.scales[k], block + kScales, k);
    for (std::size_t g = 0; g < kGroups; ++g) {
      const std::uint8_t* codes = in.codes + g * Book::kGroup;
      const std::size_t point = Book::point_of_codes(codes);
      block[2 + g] = static_cast<std::byte>(point & 255U);
      block[kSigns + g] = static_cast<std::byte>(signs_of<Book>(codes));
      block[kHighBits + g / 4] |= static_cast<std::byte>((point >> 8) << (2 * (g % 4)));
    }
  }
};

using Encoder = BlockEncoder<Layout, search_codebook_super_block<Layout>>;

}  // namespace

extern const Codec kIq2S{.name = "IQ2_S",
                         .ggml_type = 22,
                         .file_type = 28,
                         .block_size = Layout::kBlock,
                         .block_bytes = Layout::kBytes,
                         .fallback = "IQ4_NL",
                         .decode = decode_blocks<Layout>,
                         .encode = Encoder::encode,
                         .unpack = unpack_blocks<Layout>,
                         .has_offsets = Layout::kHasOffsets,
                         .grid = &Encoder::kGrid};

}  // namespace winnow::quant

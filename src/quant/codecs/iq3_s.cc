// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// IQ3_S: super-blocks of 256 weights, 8 sub-blocks of 32. w = d * (2 s + 1) * sign * point.
// Bytes: f16 d; for each of 64 groups of 4 weights the lower 8 bits of its point; 8 with the ninth
// bits; 32 with the signs, one bit a weight; 4 with the nibbles s. The first of several in a byte
// is in the lowest bits.
#include "quant/codebook_layout.h"

namespace winnow::quant {
namespace {

struct Layout {
  using Book = Iq3SBook;
  using Levels = SignedLevels<Book>;
  static constexpr std::size_t kBlock = kSuperBlock;
  static constexpr std::size_t kSubSize = 32;
  static constexpr bool kHasOffsets = false;
  static constexpr bool kEvenSigns = false;
  static constexpr int kScaleHigh = 31;
  static constexpr Codebook kCodebook = describe_codebook<Book, kEvenSigns>();
  static constexpr float kUnit = 1.0F;
  static constexpr float kUsual = 6.8F;
  static constexpr std::size_t kGroups = kBlock / Book::kGroup;
  static constexpr std::size_t kHighBits = 2 + kGroups;
  static constexpr std::size_t kSigns = kHighBits + kGroups / 8;
  static constexpr std::size_t kScales = kSigns + kBlock / 8;
  static constexpr std::size_t kBytes = kScales + kBlock / kSubSize / 2;

  static void unpack(const std::byte* block, IntegerForm out) {
    const float step = kUnit * load_half(block);
    for (std::size_t k = 0; k < kBlock / kSubSize; ++k)
      out.scales[2 * k] = out.scales[2 * k + 1] = odd_scale(block + kScales, k, step);
    for (std::size_t g = 0; g < kGroups; ++g) {
      const unsigned high = std::to_integer<unsigned>(block[kHighBits + g / 8]) >> (g % 8);
      const unsigned point = std::to_integer<unsigned>(block[2 + g]) | ((high & 1U) << 8);
      const unsigned signs = std::to_integer<unsigned>(block[kSigns + g / 2]) >> (4 * (g % 2));
      unpack_point<Book>(point, signs, out.codes + g * Book::kGroup);
    }
  }

  static void pack(const BlockParameters& in, std::byte* block) {
    std::memset(block, 0, kBytes);
    store_u16(in.scale, block);
    for (std::size_t k = 0; k < kBlock / kSubSize; ++k)
      store_odd_scale(in.scales[k], block + kScales, k);
    for (std::size_t g = 0; g < kGroups; ++g) {
      const std::size_t point = Book::point_of_codes(in.codes + g * Book::kGroup);
      block[2 + g] = static_cast<std::byte>(point & 255U);
      block[kHighBits + g / 8] |= static_cast<std::byte>((point >> 8) << (g % 8));
    }
    for (std::size_t i = 0; i < kBlock / kSignGroup; ++i) {
      block[kSigns + i] = static_cast<std::byte>(signs_of<Book>(in.codes + i * kSignGroup));
    }
  }
};

using Encoder = BlockEncoder<Layout, search_codebook_super_block<Layout>>;

}  // namespace

extern const Codec kIq3S{.name = "IQ3_S",
                         .ggml_type = 21,
                         .file_type = 26,
                         .block_size = Layout::kBlock,
                         .block_bytes = Layout::kBytes,
                         .fallback = "IQ4_NL",
                         .decode = decode_blocks<Layout>,
                         .encode = Encoder::encode,
                         .unpack = unpack_blocks<Layout>,
                         .has_offsets = Layout::kHasOffsets,
                         .grid = &Encoder::kGrid};

}  // namespace winnow::quant

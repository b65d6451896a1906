// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Q6_K (layout: quant/codecs/q6_k.cc): units of 16 weights in their natural order.

struct Q6KBlocks {
  static constexpr std::size_t kHighCodes = 128;
  static constexpr std::size_t kScales = 192;
  static constexpr std::size_t kScale = 208;

  static constexpr std::size_t kBytes = 210;
  static constexpr std::size_t kGroups = 16;
  static constexpr std::size_t kUnits = 16 / kParts;
  static constexpr std::size_t kUnitVectors = 1;
  static constexpr CodeRange kRange = CodeRange::kSmall;
  static constexpr std::int32_t kRaise = 32;
  static constexpr std::int32_t kLargest = 63;
  static constexpr bool kHasOffsets = false;
  static constexpr std::size_t group(std::size_t unit, std::size_t part) {
    return unit * kParts + part;
  }

  template <std::size_t kUnit>
  WINNOW_INLINE static void codes(const std::byte* p, Codes (&out)[kUnitVectors]) {
    constexpr std::size_t kGroup = kUnit * kParts;  // of the first part
    constexpr std::size_t kHalf = kGroup / 8;
    // From where the high bits are to bit 4: the first parts', the last parts'.
    constexpr int kFirst = static_cast<int>(kGroup % 8 / 2 * 2) - 4;
    constexpr int kSecond = static_cast<int>((kGroup + kParts - 1) % 8 / 2 * 2) - 4;
    const std::byte* low = p + 64 * kHalf + 16 * (kGroup % 4);
    const std::byte* high = p + kHighCodes + 32 * kHalf + (kParts == 1 ? 16 * (kGroup % 2) : 0);
    const Codes nibbles = field<kGroup % 8 / 4 * 4, 15>(load_parts<16>(low));
    out[0] = merge(nibbles, field_by_half<kFirst, kSecond, 0x30>(load_pairs(high)));
  }
  WINNOW_INLINE static void scales(const std::byte* const (&rows)[4], Floats (&scales)[kUnits],
                                   Floats (&/*offsets*/)[kUnits]) {
    Bytes16 bytes[4];
    for (std::size_t e = 0; e < 4; ++e) bytes[e] = load_bytes16(rows[e] + kScales);
    Bytes16 quads[4];
    interleave_rows(bytes, quads);
    super_block_scales<Q6KBlocks, 1>(quads, halves_of_rows(rows, kScale), /*bias=*/0.0F, scales);
  }
};

using Q6K = PackedDecoder<Q6KBlocks>;

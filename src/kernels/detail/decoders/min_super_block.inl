// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Q4_K and Q5_K (layouts: quant/min_super_block.h). Each 32 bytes of nibbles hold two sub-blocks,
// the low nibbles the even one; a part takes 16 bytes of every other 16, so that one unit is the
// even (or odd) sub-blocks of kParts such pairs.

template <unsigned kBits>
struct MinSuperBlocks {
  static constexpr std::size_t kScales = 4;
  static constexpr std::size_t kHighCodes = 16;
  static constexpr std::size_t kNibbles = kHighCodes + (kBits == 5 ? 32 : 0);

  static constexpr std::size_t kBytes = kNibbles + 128;
  static constexpr std::size_t kGroups = 16;
  static constexpr std::size_t kUnits = 8 / kParts;
  static constexpr std::size_t kUnitVectors = 2;
  static constexpr CodeRange kRange = CodeRange::kSmall;
  static constexpr std::int32_t kRaise = 0;
  static constexpr bool kHasOffsets = true;
  static constexpr std::size_t sub_block(std::size_t unit, std::size_t part) {
    return unit / 2 * 2 * kParts + 2 * part + unit % 2;
  }
  static constexpr std::size_t group(std::size_t unit, std::size_t part) {
    return 2 * sub_block(unit, part);
  }

  template <std::size_t kUnit>
  WINNOW_INLINE static void codes(const std::byte* p, Codes (&out)[kUnitVectors]) {
    for (std::size_t h = 0; h < 2; ++h) {
      const Codes bytes = load_parts<32>(p + kNibbles + kUnit / 2 * 32 * kParts + 16 * h);
      out[h] = field<kUnit % 2 * 4, 15>(bytes);
      if constexpr (kBits == 5) {
        const Codes bits = load_repeated(p + kHighCodes + 16 * h);
        const Codes fifth = field_by_part<sub_block(kUnit, 0), 2, 1>(bits);
        out[h] = merge(out[h], shift_left<4>(fifth));
      }
    }
  }
  WINNOW_INLINE static void scales(const std::byte* const (&rows)[4], Floats (&scales)[kUnits],
                                   Floats (&offsets)[kUnits]) {
    constexpr std::uint64_t kLow = 0x0f0f0f0f;
    constexpr std::uint64_t kHigh = 0x30303030;
    constexpr std::uint64_t kSix = 0x3f3f3f3f;
    Bytes16 s[4];
    Bytes16 m[4];
    for (std::size_t e = 0; e < 4; ++e) {
      const std::uint64_t a = detail::load_as<std::uint32_t>(rows[e] + kScales);
      const std::uint64_t b = detail::load_as<std::uint32_t>(rows[e] + kScales + 4);
      const std::uint64_t c = detail::load_as<std::uint32_t>(rows[e] + kScales + 8);
      s[e] = make_bytes16((a & kSix) | ((c & kLow) | (a >> 2 & kHigh)) << 32, 0);
      m[e] = make_bytes16((b & kSix) | ((c >> 4 & kLow) | (b >> 2 & kHigh)) << 32, 0);
    }
    super_block_scales<MinSuperBlocks, 2>(s, halves_of_rows(rows, 0), /*bias=*/0.0F, scales);
    super_block_scales<MinSuperBlocks, 2>(m, halves_of_rows(rows, 2), /*bias=*/0.0F, offsets);
  }
};

using Q4K = PackedDecoder<MinSuperBlocks<4>>;
using Q5K = PackedDecoder<MinSuperBlocks<5>>;

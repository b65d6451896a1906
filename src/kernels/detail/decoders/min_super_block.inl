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
  static constexpr std::int32_t kLargest = (1 << kBits) - 1;
  static constexpr bool kHasOffsets = true;
  static constexpr std::size_t sub_block(std::size_t unit, std::size_t part) {
    return unit / 2 * 2 * kParts + 2 * part + unit % 2;
  }
  static constexpr std::size_t group(std::size_t unit, std::size_t part) {
    return 2 * sub_block(unit, part);
  }

  template <std::size_t kUnit>
  WINNOW_INLINE static void codes(const std::byte* p, Codes (&out)[kUnitVectors]) {
    Codes nibbles[2];
    load_alternate(p + kNibbles + kUnit / 2 * 32 * kParts, nibbles[0], nibbles[1]);
    for (std::size_t h = 0; h < 2; ++h) {
      out[h] = field<kUnit % 2 * 4, 15>(nibbles[h]);
      if constexpr (kBits == 5) {  // the fifth bit, from its place in the byte to bit 4
        constexpr int kMove = static_cast<int>(sub_block(kUnit, 0)) - 4;
        const Codes bits = load_repeated(p + kHighCodes + 16 * h);
        out[h] = merge(out[h], field_by_part<kMove, 2, 16>(bits));
      }
    }
  }
  WINNOW_INLINE static void scales(const std::byte* const (&rows)[4], Floats (&scales)[kUnits],
                                   Floats (&offsets)[kUnits]) {
    Bytes16 columns[4];  // four rows' d and dmin, then their three words of 6-bit fields
    load_columns(rows, columns);
    const Bytes16 late = columns[3];
    const Bytes16 s[4] = {
        transpose_bytes(small_field<0, 63>(columns[1])),
        transpose_bytes(merge(small_field<0, 15>(late), small_field<2, 48>(columns[1]))),
        {},
        {}};
    const Bytes16 m[4] = {
        transpose_bytes(small_field<0, 63>(columns[2])),
        transpose_bytes(merge(small_field<4, 15>(late), small_field<2, 48>(columns[2]))),
        {},
        {}};
    Floats scale;
    Floats min_scale;
    repeat_halves(split_pairs(columns[0]), scale, min_scale);
    super_block_scales<MinSuperBlocks, 2>(s, scale, /*bias=*/0.0F, scales);
    super_block_scales<MinSuperBlocks, 2>(m, min_scale, /*bias=*/0.0F, offsets);
  }
};

using Q4K = PackedDecoder<MinSuperBlocks<4>>;
using Q5K = PackedDecoder<MinSuperBlocks<5>>;

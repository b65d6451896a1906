// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Q2_K and Q3_K (layouts: quant/codecs/q2_k.cc, q3_k.cc): each byte holds a field of four weights
// that are 32 apart. A unit is the 16-weight groups of one plane: where an ISA has four parts, two
// from each half of the super-block.

struct TwoBitPlanes {
  static constexpr std::size_t kGroups = 16;
  static constexpr std::size_t kUnits = 16 / kParts;
  static constexpr std::size_t kUnitVectors = 1;
  static constexpr CodeRange kRange = CodeRange::kSmall;
  /// Of the unit's first part: half of the super-block, plane, and which 16 bytes of the half.
  static constexpr std::size_t kHalfUnits = kParts == 4 ? kUnits : kUnits / 2;
  static constexpr std::size_t kPlaneUnits = kHalfUnits / 4;
  static constexpr std::size_t half(std::size_t unit) { return unit / kHalfUnits; }
  static constexpr std::size_t plane(std::size_t unit) { return unit % kHalfUnits / kPlaneUnits; }
  static constexpr std::size_t side(std::size_t unit) { return unit % kPlaneUnits; }
  static constexpr std::size_t group(std::size_t unit, std::size_t part) {
    return 8 * (half(unit) + part / 2) + 2 * plane(unit) + side(unit) + part % 2;
  }

  template <std::size_t kUnit>
  WINNOW_INLINE static Codes fields(const std::byte* p) {
    return field<2 * plane(kUnit), 3>(load_parts<16>(p + 32 * half(kUnit) + 16 * side(kUnit)));
  }
};

struct Q2KBlocks : TwoBitPlanes {
  static constexpr std::size_t kCodes = 16;
  static constexpr std::size_t kScale = 80;
  static constexpr std::size_t kMinScale = 82;

  static constexpr std::size_t kBytes = 84;
  static constexpr std::int32_t kRaise = 0;
  static constexpr std::int32_t kLargest = 3;
  static constexpr bool kHasOffsets = true;

  template <std::size_t kUnit>
  WINNOW_INLINE static void codes(const std::byte* p, Codes (&out)[kUnitVectors]) {
    out[0] = fields<kUnit>(p + kCodes);
  }
  WINNOW_INLINE static void scales(const std::byte* const (&rows)[4], Floats (&scales)[kUnits],
                                   Floats (&offsets)[kUnits]) {
    Bytes16 both[4];
    for (std::size_t e = 0; e < 4; ++e) {
      both[e] = load_bytes16(rows[e]);
    }
    Bytes16 quads[4];
    interleave_rows(both, quads);
    Bytes16 s[4];
    Bytes16 m[4];
    for (std::size_t k = 0; k < 4; ++k) {
      s[k] = small_field<0, 15>(quads[k]);
      m[k] = small_field<4, 15>(quads[k]);
    }
    super_block_scales<Q2KBlocks, 1>(s, halves_of_rows(rows, kScale), /*bias=*/0.0F, scales);
    super_block_scales<Q2KBlocks, 1>(m, halves_of_rows(rows, kMinScale), /*bias=*/0.0F, offsets);
  }
};

struct Q3KBlocks : TwoBitPlanes {
  static constexpr std::size_t kLowCodes = 32;
  static constexpr std::size_t kScales = 96;
  static constexpr std::size_t kScale = 108;

  static constexpr std::size_t kBytes = 110;
  static constexpr std::int32_t kRaise = 4;
  static constexpr std::int32_t kLargest = 7;
  static constexpr bool kHasOffsets = false;

  template <std::size_t kUnit>
  WINNOW_INLINE static void codes(const std::byte* p, Codes (&out)[kUnitVectors]) {
    constexpr int kLower = static_cast<int>(4 * half(kUnit) + plane(kUnit)) - 2;  // to bit 2
    constexpr int kUpper = kParts == 4 ? kLower + 4 : kLower;
    const Codes third = field_by_half<kLower, kUpper, 4>(load_pairs(p + 16 * side(kUnit)));
    out[0] = merge(fields<kUnit>(p + kLowCodes), third);
  }
  WINNOW_INLINE static void scales(const std::byte* const (&rows)[4], Floats (&scales)[kUnits],
                                   Floats (&/*offsets*/)[kUnits]) {
    Bytes16 columns[4];  // four rows' words: the last codes, low nibbles (two words), upper bits
    load_columns({rows[0] + kScales - 4, rows[1] + kScales - 4, rows[2] + kScales - 4,
                  rows[3] + kScales - 4},
                 columns);
    const Bytes16 high = columns[3];
    const Bytes16 quads[4] = {
        transpose_bytes(merge(small_field<0, 15>(columns[1]), small_field<-4, 48>(high))),
        transpose_bytes(merge(small_field<0, 15>(columns[2]), small_field<-2, 48>(high))),
        transpose_bytes(merge(small_field<4, 15>(columns[1]), small_field<0, 48>(high))),
        transpose_bytes(merge(small_field<4, 15>(columns[2]), small_field<2, 48>(high)))};
    super_block_scales<Q3KBlocks, 1>(quads, halves_of_rows(rows, kScale), /*bias=*/32.0F, scales);
  }
};

using Q2K = PackedDecoder<Q2KBlocks>;
using Q3K = PackedDecoder<Q3KBlocks>;

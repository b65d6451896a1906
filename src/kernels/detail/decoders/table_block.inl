// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Blocks of 32 nibbles that index a table of 16 values: IQ4_NL (f16 scale), MXFP4 (exponent byte)
// and IQ4_XS (super-blocks). The low nibbles of 16 bytes are the first half of a block.

alignas(16) inline constexpr std::int8_t kCurvedValues[16] = {
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
/// The doubled MXFP4 values raised by 12.
alignas(16) inline constexpr std::int8_t kRaisedFloatValues[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                                                   12, 11, 10, 9,  8,  6,  4,  0};

struct Iq4NlBlocks {
  static constexpr std::size_t kBlockBytes = 18;

  static constexpr std::size_t kBytes = kBlockBytes * kParts;
  static constexpr std::size_t kGroups = 2 * kParts;
  static constexpr std::size_t kUnits = 1;
  static constexpr std::size_t kUnitVectors = 2;
  static constexpr CodeRange kRange = CodeRange::kSigned;
  static constexpr std::int32_t kRaise = 0;
  static constexpr std::int32_t kLargest = 255;
  static constexpr bool kHasOffsets = false;
  static constexpr std::size_t group(std::size_t /*unit*/, std::size_t part) { return 2 * part; }

  template <std::size_t kUnit>
  WINNOW_INLINE static void codes(const std::byte* p, Codes (&out)[kUnitVectors]) {
    const Codes nibbles = load_parts<kBlockBytes>(p + 2);
    out[0] = look_up(kCurvedValues, field<0, 15>(nibbles));
    out[1] = look_up(kCurvedValues, field<4, 15>(nibbles));
  }
  WINNOW_INLINE static void scales(const std::byte* const (&rows)[4], Floats (&scales)[kUnits],
                                   Floats (&/*offsets*/)[kUnits]) {
    scales[0] = halves_of_blocks<kBlockBytes>(rows, 0);
  }
};

struct Mxfp4Blocks {
  static constexpr std::size_t kBlockBytes = 17;

  static constexpr std::size_t kBytes = kBlockBytes * kParts;
  static constexpr std::size_t kGroups = 2 * kParts;
  static constexpr std::size_t kUnits = 1;
  static constexpr std::size_t kUnitVectors = 2;
  static constexpr CodeRange kRange = CodeRange::kSmall;
  static constexpr std::int32_t kRaise = 12;
  static constexpr std::int32_t kLargest = 24;
  static constexpr bool kHasOffsets = false;
  static constexpr std::size_t group(std::size_t /*unit*/, std::size_t part) { return 2 * part; }

  template <std::size_t kUnit>
  WINNOW_INLINE static void codes(const std::byte* p, Codes (&out)[kUnitVectors]) {
    const Codes nibbles = load_parts<kBlockBytes>(p + 1);
    out[0] = look_up(kRaisedFloatValues, field<0, 15>(nibbles));
    out[1] = look_up(kRaisedFloatValues, field<4, 15>(nibbles));
  }
  WINNOW_INLINE static void scales(const std::byte* const (&rows)[4], Floats (&scales)[kUnits],
                                   Floats (&/*offsets*/)[kUnits]) {
    scales[0] = powers_of_two(bytes_of_blocks<kBlockBytes>(rows));
  }
};

struct Iq4XsBlocks {
  static constexpr std::size_t kBytes = 136;
  static constexpr std::size_t kIndices = 8;
  static constexpr std::size_t kGroups = 16;
  static constexpr std::size_t kUnits = 8 / kParts;
  static constexpr std::size_t kUnitVectors = 2;
  static constexpr CodeRange kRange = CodeRange::kSigned;
  static constexpr std::int32_t kRaise = 0;
  static constexpr std::int32_t kLargest = 255;
  static constexpr bool kHasOffsets = false;
  static constexpr std::size_t group(std::size_t unit, std::size_t part) {
    return 2 * (unit * kParts + part);
  }

  template <std::size_t kUnit>
  WINNOW_INLINE static void codes(const std::byte* p, Codes (&out)[kUnitVectors]) {
    const Codes nibbles = load_parts<16>(p + kIndices + 16 * kParts * kUnit);
    out[0] = look_up(kCurvedValues, field<0, 15>(nibbles));
    out[1] = look_up(kCurvedValues, field<4, 15>(nibbles));
  }
  WINNOW_INLINE static void scales(const std::byte* const (&rows)[4], Floats (&scales)[kUnits],
                                   Floats (&/*offsets*/)[kUnits]) {
    Bytes16 bytes[4];
    for (std::size_t e = 0; e < 4; ++e) {
      const std::uint64_t low =
          spread_bits(detail::load_as<std::uint32_t>(rows[e] + 4), 0x0f0f0f0f0f0f0f0fULL);
      const std::uint64_t high =
          spread_bits(detail::load_as<std::uint16_t>(rows[e] + 2), 0x3030303030303030ULL);
      bytes[e] = make_bytes16(low | high, 0);
    }
    Bytes16 quads[4];
    interleave_rows(bytes, quads);
    super_block_scales<Iq4XsBlocks, 2>(quads, halves_of_rows(rows, 0), /*bias=*/32.0F, scales);
  }
};

using Iq4Nl = PackedDecoder<Iq4NlBlocks>;
using Mxfp4 = PackedDecoder<Mxfp4Blocks>;
using Iq4Xs = PackedDecoder<Iq4XsBlocks>;

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Q4_0, Q4_1, Q5_0, Q5_1 (layouts: quant/nibble_block.h). A step is one block per part: the low
// nibbles of its 16 bytes are the first half of a block, the high nibbles the second.

template <unsigned kBits, bool kWithBase>
struct NibbleBlocks {
  static constexpr std::size_t kHighBits = kWithBase ? 4 : 2;
  static constexpr std::size_t kNibbles = kHighBits + (kBits == 5 ? 4 : 0);
  static constexpr std::size_t kBlockBytes = kNibbles + 16;

  static constexpr std::size_t kBytes = kBlockBytes * kParts;
  static constexpr std::size_t kGroups = 2 * kParts;
  static constexpr std::size_t kUnits = 1;
  static constexpr std::size_t kUnitVectors = 2;
  static constexpr CodeRange kRange = CodeRange::kSmall;
  static constexpr std::int32_t kRaise = kWithBase ? 0 : 1 << (kBits - 1);
  static constexpr std::int32_t kLargest = (1 << kBits) - 1;
  static constexpr bool kHasOffsets = kWithBase;
  static constexpr std::size_t group(std::size_t /*unit*/, std::size_t part) { return 2 * part; }

  template <std::size_t kUnit>
  WINNOW_INLINE static void codes(const std::byte* p, Codes (&out)[kUnitVectors]) {
    const Codes nibbles = load_parts<kBlockBytes>(p + kNibbles);
    out[0] = field<0, 15>(nibbles);
    out[1] = field<4, 15>(nibbles);
    if constexpr (kBits == 5) {
      out[0] = merge(out[0], codes_of_bits<kBlockBytes, 16>(p + kHighBits));
      out[1] = merge(out[1], codes_of_bits<kBlockBytes, 16>(p + kHighBits + 2));
    }
  }
  WINNOW_INLINE static void scales(const std::byte* const (&rows)[4], Floats (&scales)[kUnits],
                                   Floats (&offsets)[kUnits]) {
    scales[0] = halves_of_blocks<kBlockBytes>(rows, 0);
    if constexpr (kWithBase) {
      offsets[0] = sub(broadcast(0.0F), halves_of_blocks<kBlockBytes>(rows, 2));
    }
  }
};

using Q40 = PackedDecoder<NibbleBlocks<4, false>>;
using Q41 = PackedDecoder<NibbleBlocks<4, true>>;
using Q50 = PackedDecoder<NibbleBlocks<5, false>>;
using Q51 = PackedDecoder<NibbleBlocks<5, true>>;

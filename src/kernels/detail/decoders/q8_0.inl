// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Q8_0: blocks of 32 codes behind an f16 scale.

struct Q8Blocks {
  static constexpr std::size_t kBlockBytes = 34;

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
    out[0] = load_parts<kBlockBytes>(p + 2);
    out[1] = load_parts<kBlockBytes>(p + 18);
  }
  WINNOW_INLINE static void scales(const std::byte* const (&rows)[4], Floats (&scales)[kUnits],
                                   Floats (&/*offsets*/)[kUnits]) {
    scales[0] = halves_of_blocks<kBlockBytes>(rows, 0);
  }
};

using Q80 = PackedDecoder<Q8Blocks>;

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How the scratch memory of one thread is divided while it multiplies with one row of weights.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/codec.h"

namespace winnow::kernels::detail {

inline constexpr std::size_t kScratchAlignment = 64;

constexpr std::size_t align_scratch(std::size_t bytes) {
  return (bytes + kScratchAlignment - 1) / kScratchAlignment * kScratchAlignment;
}

/// Bytes of each part for rows of `cols` weights; each part begins on kScratchAlignment.
constexpr std::size_t code_bytes(std::size_t cols) { return align_scratch(cols); }
constexpr std::size_t group_bytes(std::size_t cols) {
  return align_scratch(cols / quant::IntegerForm::kGroup * sizeof(float));
}
constexpr std::size_t float_bytes(std::size_t cols) { return align_scratch(cols * sizeof(float)); }

/// Upper bounds over all ISAs: rows unpacked by a codec at a time, rows of f32 at a time, rows of a
/// panel, tokens that are put into a decoder's order, bytes of a vector.
inline constexpr std::size_t kMaxIntegerRows = 16;
inline constexpr std::size_t kMaxFloatRows = 4;
inline constexpr std::size_t kMaxPanelRows = 48;
inline constexpr std::size_t kMaxOrderedTokens = 16;
inline constexpr std::size_t kMaxStep = 256;

/// Bytes of the integer form of one row.
constexpr std::size_t integer_row_bytes(std::size_t cols) {
  return code_bytes(cols) + 2 * group_bytes(cols);
}

/// Room for the integer form of row `i` < kMaxIntegerRows: codes, scales, offsets.
inline quant::IntegerForm integer_row(std::byte* scratch, std::size_t cols, std::size_t i) {
  std::byte* row = scratch + i * integer_row_bytes(cols);
  return {reinterpret_cast<std::int8_t*>(row), reinterpret_cast<float*>(row + code_bytes(cols)),
          reinterpret_cast<float*>(row + code_bytes(cols) + group_bytes(cols))};
}
inline std::byte* after_integer_rows(std::byte* scratch, std::size_t cols) {
  return scratch + kMaxIntegerRows * integer_row_bytes(cols);
}

/// Bytes that a product with codes may use. Behind the integer rows: for each weight of a panel one
/// byte, for each group of 16 two f32 and (once) the place of its unit; or for each activation of
/// the ordered tokens one byte and, for each group of 16, three vectors of four f32.
constexpr std::size_t code_scratch_bytes(std::size_t cols) {
  const std::size_t padded = (cols + kMaxStep - 1) / kMaxStep * kMaxStep;
  const std::size_t groups = padded / quant::IntegerForm::kGroup;
  const std::size_t panel = kMaxPanelRows * (padded + groups * 2 * sizeof(float)) +
                            groups * sizeof(std::uint32_t);
  const std::size_t ordered = kMaxOrderedTokens * (padded + groups * 3 * 4 * sizeof(float));
  return kMaxIntegerRows * integer_row_bytes(cols) + align_scratch(panel > ordered ? panel : ordered);
}

/// Room for decoded row `i` < kMaxFloatRows of a tile: [cols] f32.
inline float* float_row(std::byte* scratch, std::size_t cols, std::size_t i) {
  return reinterpret_cast<float*>(scratch + i * float_bytes(cols));
}

}  // namespace winnow::kernels::detail

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

/// Rows that a kernel unpacks at a time, at most.
inline constexpr std::size_t kMaxTileRows = 4;

/// Bytes of the integer form of one row.
constexpr std::size_t integer_row_bytes(std::size_t cols) {
  return code_bytes(cols) + 2 * group_bytes(cols);
}

/// Room for the integer form of row `i` < kMaxTileRows of a tile: codes, scales, offsets.
inline quant::IntegerForm integer_row(std::byte* scratch, std::size_t cols, std::size_t i) {
  std::byte* row = scratch + i * integer_row_bytes(cols);
  return {reinterpret_cast<std::int8_t*>(row), reinterpret_cast<float*>(row + code_bytes(cols)),
          reinterpret_cast<float*>(row + code_bytes(cols) + group_bytes(cols))};
}

/// Room for decoded row `i` < kMaxTileRows of a tile: [cols] f32.
inline float* float_row(std::byte* scratch, std::size_t cols, std::size_t i) {
  return reinterpret_cast<float*>(scratch + i * float_bytes(cols));
}

}  // namespace winnow::kernels::detail

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

/// The integer form of the one row that is being multiplied: codes, scales, offsets.
inline quant::IntegerForm integer_row(std::byte* scratch, std::size_t cols) {
  return {reinterpret_cast<std::int8_t*>(scratch),
          reinterpret_cast<float*>(scratch + code_bytes(cols)),
          reinterpret_cast<float*>(scratch + code_bytes(cols) + group_bytes(cols))};
}

/// The decoded row: [cols] f32.
inline float* float_row(std::byte* scratch) { return reinterpret_cast<float*>(scratch); }

}  // namespace winnow::kernels::detail

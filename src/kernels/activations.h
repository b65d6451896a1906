// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Activations in the form that weight matrices are multiplied with: f32 for float weights, int8
// codes with a scale per block for quantised ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tensor/matrix.h"

namespace winnow::kernels {

/// Values per scale. Divides every codec's block size.
inline constexpr std::size_t kActivationBlock = 32;
/// Values per code sum: the finest granularity at which a codec has an offset.
inline constexpr std::size_t kActivationSumGroup = 16;

/// Borrowed int8 activations of `tokens` rows: |x_j - scale * code_j| <= scale / 2, codes in
/// [-127, 127], the same on every ISA.
struct QuantizedActivations {
  std::size_t tokens = 0;
  std::size_t cols = 0;                ///< in_features, a multiple of kActivationBlock
  const std::int8_t* codes = nullptr;  ///< [rows, cols]
  const float* scales = nullptr;       ///< [rows, cols / kActivationBlock]
  const std::int32_t* sums = nullptr;  ///< [rows, cols / kActivationSumGroup], sums of codes
  /// Which row each token is, [tokens]; null when token t is row t.
  const std::uint32_t* rows = nullptr;

  std::size_t row_of(std::size_t token) const { return rows == nullptr ? token : rows[token]; }
  const std::int8_t* codes_of(std::size_t token) const { return codes + row_of(token) * cols; }
  const float* scales_of(std::size_t token) const {
    return scales + row_of(token) * (cols / kActivationBlock);
  }
  const std::int32_t* sums_of(std::size_t token) const {
    return sums + row_of(token) * (cols / kActivationSumGroup);
  }

  /// Token `token` alone, as row 0.
  QuantizedActivations row_view(std::size_t token) const {
    return {1, cols, codes_of(token), scales_of(token), sums_of(token), nullptr};
  }
  /// `count` tokens beginning with token `first`.
  QuantizedActivations slice(std::size_t first, std::size_t count) const {
    if (rows != nullptr) return {count, cols, codes, scales, sums, rows + first};
    return {count, cols, codes_of(first), scales_of(first), sums_of(first), nullptr};
  }
  /// Rows `chosen` of this, which must be without a choice itself. Borrows `chosen`.
  QuantizedActivations choose(std::span<const std::uint32_t> chosen) const {
    return {chosen.size(), cols, codes, scales, sums, chosen.data()};
  }
};

/// Owns room for int8 activations; grows, never shrinks.
class ActivationBuffer {
 public:
  /// Some rows on their own, with fewer columns than the buffer's: packed one after the other.
  struct Stretch {
    std::size_t rows = 0;
    std::size_t cols = 0;
    std::int8_t* codes = nullptr;
    float* scales = nullptr;
    std::int32_t* sums = nullptr;

    QuantizedActivations view() const { return {rows, cols, codes, scales, sums, nullptr}; }
  };
  /// Room for [tokens, cols]; contents are undefined until written.
  void resize(std::size_t tokens, std::size_t cols);
  QuantizedActivations view() const {
    return {tokens_, cols_, codes_.data(), scales_.data(), sums_.data(), nullptr};
  }
  std::int8_t* codes(std::size_t token) { return codes_.data() + token * cols_; }
  float* scales(std::size_t token) { return scales_.data() + token * (cols_ / kActivationBlock); }
  std::int32_t* sums(std::size_t token) {
    return sums_.data() + token * (cols_ / kActivationSumGroup);
  }
  /// In the room of rows [first, first + count); cols: at most the buffer's.
  Stretch stretch(std::size_t first, std::size_t count, std::size_t cols) {
    return {count, cols, codes(first), scales(first), sums(first)};
  }

 private:
  std::size_t tokens_ = 0;
  std::size_t cols_ = 0;
  std::vector<std::int8_t> codes_;
  std::vector<float> scales_;
  std::vector<std::int32_t> sums_;
};

}  // namespace winnow::kernels

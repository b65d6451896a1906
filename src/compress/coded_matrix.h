// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A weight matrix as codes and scales that can still be changed, before it is packed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "quant/block_grid.h"
#include "quant/codec.h"

namespace winnow::compress {

/// [rows, cols] weights of an integer codec, cols a multiple of its block: what `quant::BlockGrid`
/// describes, field by field. About 1.2 bytes per weight. Rows may be changed in parallel.
class CodedMatrix {
 public:
  CodedMatrix(const quant::Codec& codec, std::size_t rows, std::size_t cols);

  const quant::BlockGrid& grid() const { return *codec_->grid; }
  std::size_t rows() const { return rows_; }
  std::size_t cols() const { return cols_; }
  std::size_t blocks_per_row() const { return cols_ / grid().block_size; }
  std::size_t subs_per_block() const { return grid().block_size / grid().sub_size; }

  void set_block(std::size_t row, std::size_t block, const quant::BlockParameters& parameters);

  /// Indices of levels, [cols].
  std::span<std::uint8_t> codes(std::size_t row) { return slice(codes_, row); }
  std::span<const std::uint8_t> codes(std::size_t row) const { return slice(codes_, row); }
  /// Integers of the sub-blocks, [cols / sub_size].
  std::span<std::int8_t> scales(std::size_t row) { return slice(scales_, row); }
  std::span<std::int8_t> mins(std::size_t row) { return slice(mins_, row); }
  /// Stored scales of the blocks, [cols / block_size].
  std::span<std::uint16_t> block_scales(std::size_t row) { return slice(block_scales_, row); }
  std::span<std::uint16_t> block_mins(std::size_t row) { return slice(block_mins_, row); }

  /// s and m of sub-block k of a row: a weight there is s * level - m, each step rounded to f32.
  float step(std::size_t row, std::size_t k) const;
  float offset(std::size_t row, std::size_t k) const;
  float value(float step, float offset, std::uint8_t code) const {
    const float product = step * static_cast<float>(grid().levels[code]);
    return grid().has_mins() ? product - offset : product;
  }

  /// The weights as they will be decoded, [cols].
  void decode_row(std::size_t row, std::span<float> out) const;
  /// Packs one row into its bytes, cols / block_size * block_bytes of them.
  void pack_row(std::size_t row, std::byte* out) const;

 private:
  template <typename T>
  std::span<T> slice(std::vector<T>& all, std::size_t row) {
    const std::size_t length = all.size() / rows_;
    return {all.data() + row * length, length};
  }
  template <typename T>
  std::span<const T> slice(const std::vector<T>& all, std::size_t row) const {
    const std::size_t length = all.size() / rows_;
    return {all.data() + row * length, length};
  }

  const quant::Codec* codec_;
  std::size_t rows_;
  std::size_t cols_;
  std::vector<std::uint8_t> codes_;
  std::vector<std::int8_t> scales_;
  std::vector<std::int8_t> mins_;
  std::vector<std::uint16_t> block_scales_;
  std::vector<std::uint16_t> block_mins_;
};

/// Columns whose codes depend on each other, adjacent and aligned: those of a sign field, or 1.
inline std::size_t columns_coded_together(const quant::BlockGrid& grid) {
  return grid.codebook == nullptr ? 1 : quant::kSignGroup;
}

}  // namespace winnow::compress

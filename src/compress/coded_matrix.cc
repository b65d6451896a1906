// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/coded_matrix.h"

#include <algorithm>

#include "base/error.h"

namespace winnow::compress {

CodedMatrix::CodedMatrix(const quant::Codec& codec, std::size_t rows, std::size_t cols)
    : codec_(&codec), rows_(rows), cols_(cols) {
  WINNOW_CHECK(codec.grid != nullptr && rows > 0 && cols % codec.block_size == 0);
  const std::size_t blocks = rows * blocks_per_row();
  codes_.resize(rows * cols);
  scales_.resize(blocks * subs_per_block());
  mins_.resize(scales_.size());
  block_scales_.resize(blocks);
  block_mins_.resize(blocks);
}

void CodedMatrix::set_block(std::size_t row, std::size_t block,
                            const quant::BlockParameters& parameters) {
  const std::size_t subs = subs_per_block();
  block_scales(row)[block] = parameters.scale;
  block_mins(row)[block] = parameters.min_scale;
  std::copy_n(parameters.scales, subs, scales(row).data() + block * subs);
  std::copy_n(parameters.mins, subs, mins(row).data() + block * subs);
  std::copy_n(parameters.codes, grid().block_size, codes(row).data() + block * grid().block_size);
}

float CodedMatrix::step(std::size_t row, std::size_t k) const {
  const std::uint16_t stored = slice(block_scales_, row)[k / subs_per_block()];
  return grid().scale_value(stored) * static_cast<float>(slice(scales_, row)[k]);
}

float CodedMatrix::offset(std::size_t row, std::size_t k) const {
  const std::uint16_t stored = slice(block_mins_, row)[k / subs_per_block()];
  return quant::BlockGrid::min_value(stored) * static_cast<float>(slice(mins_, row)[k]);
}

void CodedMatrix::decode_row(std::size_t row, std::span<float> out) const {
  const std::size_t size = grid().sub_size;
  const auto row_codes = codes(row);
  for (std::size_t k = 0; k * size < cols_; ++k) {
    const float s = step(row, k);
    const float m = offset(row, k);
    for (std::size_t j = k * size; j < (k + 1) * size; ++j) out[j] = value(s, m, row_codes[j]);
  }
}

void CodedMatrix::pack_row(std::size_t row, std::byte* out) const {
  const std::size_t subs = subs_per_block();
  const std::size_t size = grid().block_size;
  for (std::size_t b = 0; b < blocks_per_row(); ++b) {
    quant::BlockParameters block;
    block.scale = slice(block_scales_, row)[b];
    block.min_scale = slice(block_mins_, row)[b];
    std::copy_n(slice(scales_, row).data() + b * subs, subs, block.scales);
    std::copy_n(slice(mins_, row).data() + b * subs, subs, block.mins);
    std::copy_n(codes(row).data() + b * size, size, block.codes);
    grid().pack(block, out + b * codec_->block_bytes);
  }
}

}  // namespace winnow::compress

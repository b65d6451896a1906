// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/hidden_states.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace winnow::compress {

HiddenStates::HiddenStates(std::vector<std::size_t> rows, std::size_t cols,
                           std::filesystem::path folder, Durability durability)
    : rows_(std::move(rows)), cols_(cols), folder_(std::move(folder)), durability_(durability) {
  offsets_.push_back(0);
  for (const std::size_t count : rows_) offsets_.push_back(offsets_.back() + count);
  if (folder_.empty()) memory_.resize(rows_.size());
}

std::filesystem::path HiddenStates::file_name(std::size_t number) {
  return fmt::format("states-{:05}.f32", number);
}

bool HiddenStates::has(std::size_t number) const {
  std::error_code error;
  const auto size = std::filesystem::file_size(folder_ / file_name(number), error);
  return on_disk() && !error && size == offsets_.back() * cols_ * sizeof(float);
}

void HiddenStates::open(std::size_t number) {
  if (on_disk()) input_ = os::open_file(folder_ / file_name(number));
}

void HiddenStates::read(std::size_t batch, tensor::MatrixView<float> out) const {
  WINNOW_CHECK(out.rows == rows_[batch]);
  read_rows(batch, 0, out);
}

void HiddenStates::read_rows(std::size_t batch, std::size_t first,
                             tensor::MatrixView<float> out) const {
  WINNOW_CHECK(first + out.rows <= rows_[batch] && out.cols == cols_ && out.row_stride == cols_);
  const std::span<float> values(out.data, out.rows * out.cols);
  if (on_disk()) {
    const std::uint64_t row = offsets_[batch] + first;
    input_->read_at(row * cols_ * sizeof(float), std::as_writable_bytes(values));
  } else {
    const auto begin = memory_[batch].begin() + static_cast<std::ptrdiff_t>(first * cols_);
    std::copy_n(begin, values.size(), values.begin());
  }
}

void HiddenStates::create(std::size_t number) {
  if (on_disk()) output_.emplace(folder_ / file_name(number));
}

void HiddenStates::write(std::size_t batch, tensor::MatrixView<const float> values) {
  WINNOW_CHECK(values.rows == rows_[batch] && values.row_stride == cols_);
  const std::span<const float> flat(values.data, values.rows * values.cols);
  if (on_disk()) {
    output_->append(std::as_bytes(flat));
  } else {
    memory_[batch].assign(flat.begin(), flat.end());
  }
}

void HiddenStates::commit() {
  if (!output_) return;
  output_->commit(durability_);
  output_.reset();
}

void HiddenStates::drop(std::size_t number) {
  if (!on_disk()) return;
  input_.reset();
  std::error_code ignored;  // what stays goes with the folder
  std::filesystem::remove(folder_ / file_name(number), ignored);
}

}  // namespace winnow::compress

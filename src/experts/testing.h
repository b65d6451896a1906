// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// For tests of stores: a file whose bytes say where they are, experts in it, and what was read.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "experts/store.h"
#include "os/file.h"
#include "os/testing.h"

namespace winnow::experts::testing {

/// Byte i of the file is os::numbered_byte(i). Not on disk.
class NumberedMemory final : public os::RandomAccessFile {
 public:
  explicit NumberedMemory(std::size_t size) : size_(size) {}
  const std::string& name() const override { return name_; }
  Bytes size() const override { return {size_}; }
  void read_at(std::uint64_t offset, std::span<std::byte> out) const override {
    if (offset + out.size() > size_) fail_data("{}: ends before offset {}", name_, offset);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = os::numbered_byte(offset + i);
  }

 private:
  std::string name_ = "experts.bin";
  std::size_t size_;
};

/// Places F32 matrices one after the other, from byte 32 on.
class MatrixPlacer {
 public:
  explicit MatrixPlacer(const os::RandomAccessFile& file) : file_(file) {}

  MatrixLocation next(std::size_t rows, std::size_t cols) {
    const MatrixLocation location{&file_, offset_, quant::find_codec("F32"), rows, cols};
    offset_ += rows * cols * sizeof(float);
    return location;
  }
  /// Three matrices that follow each other.
  ExpertLocation expert(std::size_t inner, std::size_t hidden) {
    const MatrixLocation gate = next(inner, hidden);
    const MatrixLocation up = next(inner, hidden);
    return {gate, up, next(hidden, inner)};
  }
  void skip(std::uint64_t bytes) { offset_ += bytes; }
  std::uint64_t end() const { return offset_; }

 private:
  const os::RandomAccessFile& file_;
  std::uint64_t offset_ = 32;
};

inline void expect_bytes_of(const MatrixLocation& from, const quant::PackedMatrix& matrix) {
  ASSERT_EQ(matrix.rows, from.rows);
  ASSERT_EQ(matrix.cols, from.cols);
  const std::size_t bytes = matrix.bytes().value;
  for (std::size_t i = 0; i < bytes; ++i) {
    ASSERT_EQ(matrix.data[i], os::numbered_byte(from.offset + i)) << "at " << from.offset + i;
  }
}

inline void expect_expert(const ExpertLocation& from, const PinnedExpert& expert) {
  const auto& matrices = std::get<ExpertMatrices>(expert.form());
  expect_bytes_of(from.gate_proj, matrices.gate_proj);
  expect_bytes_of(from.up_proj, matrices.up_proj);
  expect_bytes_of(from.down_proj, matrices.down_proj);
}

}  // namespace winnow::experts::testing

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Row-major matrices: an owner and a borrower.
#pragma once

#include <cstddef>
#include <new>
#include <span>
#include <vector>

#include "base/error.h"

namespace winnow::tensor {

/// Borrows `rows` rows of `cols` elements, `row_stride` elements apart. Shape [rows, cols].
template <typename T>
struct MatrixView {
  T* data = nullptr;
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::size_t row_stride = 0;

  std::span<T> row(std::size_t r) const { return {data + r * row_stride, cols}; }
  MatrixView rows_from(std::size_t first, std::size_t count) const {
    return {data + first * row_stride, count, cols, row_stride};
  }
  // Implicit: a view may be read wherever a read-only one is asked.
  // NOLINTNEXTLINE(google-explicit-constructor)
  operator MatrixView<const T>() const { return {data, rows, cols, row_stride}; }
};

/// Memory that begins where a cache line does: no vector of its first row crosses one.
template <typename T>
struct AlignedAllocator {
  using value_type = T;
  static constexpr std::align_val_t kAlignment{64};

  AlignedAllocator() = default;
  template <typename Other>
  // Implicit: containers make allocators for other types of it.
  // NOLINTNEXTLINE(google-explicit-constructor)
  AlignedAllocator(const AlignedAllocator<Other>& /*other*/) {}

  T* allocate(std::size_t count) {
    return static_cast<T*>(::operator new(count * sizeof(T), kAlignment));
  }
  void deallocate(T* data, std::size_t /*count*/) { ::operator delete(data, kAlignment); }
  bool operator==(const AlignedAllocator& /*other*/) const { return true; }
};

template <typename T>
using AlignedVector = std::vector<T, AlignedAllocator<T>>;

/// Owns a dense row-major matrix of zeros. Moves; copying is `clone`.
template <typename T>
class Matrix {
 public:
  Matrix() = default;
  Matrix(std::size_t rows, std::size_t cols) : rows_(rows), cols_(cols), data_(rows * cols) {}
  Matrix(Matrix&&) noexcept = default;
  Matrix& operator=(Matrix&&) noexcept = default;
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;

  /// Makes it [rows, cols]; contents are undefined afterwards. Memory grows and never shrinks.
  void reshape(std::size_t rows, std::size_t cols) {
    rows_ = rows;
    cols_ = cols;
    if (data_.size() < rows * cols) data_.resize(rows * cols);
  }

  std::size_t rows() const { return rows_; }
  std::size_t cols() const { return cols_; }
  std::span<T> row(std::size_t r) { return {data_.data() + r * cols_, cols_}; }
  std::span<const T> row(std::size_t r) const { return {data_.data() + r * cols_, cols_}; }
  std::span<T> flat() { return {data_.data(), rows_ * cols_}; }
  std::span<const T> flat() const { return {data_.data(), rows_ * cols_}; }
  MatrixView<T> view() { return {data_.data(), rows_, cols_, cols_}; }
  MatrixView<const T> view() const { return {data_.data(), rows_, cols_, cols_}; }
  Matrix clone() const {
    Matrix copy(rows_, cols_);
    copy.data_ = data_;
    return copy;
  }

 private:
  std::size_t rows_ = 0;
  std::size_t cols_ = 0;
  AlignedVector<T> data_;
};

}  // namespace winnow::tensor

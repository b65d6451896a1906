// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Shapes of tensors, outermost dimension first, as in safetensors and NumPy (GGUF stores them the
// other way round; its reader and writer turn them).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>

namespace winnow::tensor {

/// Up to four dimensions. Rank 0 is a scalar of one element.
class Shape {
 public:
  static constexpr std::size_t kMaxRank = 4;

  Shape() = default;
  Shape(std::initializer_list<std::uint64_t> dims);
  /// Throws Error{kBadData} when there are more than kMaxRank dimensions.
  explicit Shape(std::span<const std::uint64_t> dims);

  std::size_t rank() const { return rank_; }
  std::uint64_t operator[](std::size_t i) const { return dims_[i]; }
  std::span<const std::uint64_t> dims() const { return {dims_.data(), rank_}; }
  /// Product of all dimensions, or nothing when it does not fit 64 bits.
  std::optional<std::uint64_t> checked_elements() const;
  /// Product of all dimensions; the shape comes from a reader that has checked it.
  std::uint64_t elements() const;
  /// Length of a row: the innermost dimension (1 for a scalar).
  std::uint64_t row_length() const { return rank_ == 0 ? 1 : dims_[rank_ - 1]; }
  /// "[32, 128, 256]"
  std::string to_string() const;
  friend bool operator==(const Shape&, const Shape&) = default;

 private:
  std::array<std::uint64_t, kMaxRank> dims_{};
  std::size_t rank_ = 0;
};

}  // namespace winnow::tensor

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Which matrices and rows of a group stand for all of it where options are compared.
#pragma once

#include <algorithm>
#include <cstddef>

#include "compress/tensor_group.h"

namespace winnow::compress {

/// Evenly spread; the same for every codec, so that errors of different codecs compare.
class RowSample {
 public:
  explicit RowSample(const TensorGroup& group)
      : RowSample(group, !group.options.front().part_errors.empty()) {}

  std::size_t rows;  ///< of each matrix

  static bool has(std::size_t index, std::size_t count, std::size_t total) {
    return (index + 1) * count / total != index * count / total;
  }
  bool has_part(const TensorGroup& group, ExpertId expert) const {
    return has(index(expert), parts_, group.parts);
  }
  /// Weights of the group for each sampled one.
  double scale(const TensorGroup& group) const {
    return static_cast<double>(group.parts * group.rows) / static_cast<double>(parts_ * rows);
  }

 private:
  static constexpr std::size_t kRows = 256;  // of a group
  static constexpr std::size_t kLeastRows = 8;
  static constexpr std::size_t kParts = 32;
  // Where experts are told apart, so many rows of each.
  static constexpr std::size_t kLeastRowsOfExpert = 16;

  RowSample(const TensorGroup& group, bool tells_apart)
      : rows(0), parts_(tells_apart ? group.parts : std::min(group.parts, kParts)) {
    const std::size_t least = tells_apart ? kLeastRowsOfExpert : kLeastRows;
    rows = std::min(group.rows, std::max(least, kRows / parts_));
  }

  std::size_t parts_;
};

}  // namespace winnow::compress

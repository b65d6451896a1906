// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "tensor/shape.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/checked.h"
#include "base/error.h"

namespace winnow::tensor {

Shape::Shape(std::initializer_list<std::uint64_t> dims)
    : Shape(std::span<const std::uint64_t>(dims.begin(), dims.size())) {}

Shape::Shape(std::span<const std::uint64_t> dims) : rank_(dims.size()) {
  if (dims.size() > kMaxRank) {
    fail_data("a tensor has {} dimensions; at most {} are supported", dims.size(), kMaxRank);
  }
  std::copy(dims.begin(), dims.end(), dims_.begin());
}

std::optional<std::uint64_t> Shape::checked_elements() const {
  std::uint64_t product = 1;
  for (const std::uint64_t dim : dims()) {
    const auto next = checked_mul(product, dim);
    if (!next) return std::nullopt;
    product = *next;
  }
  return product;
}

std::uint64_t Shape::elements() const {
  const auto product = checked_elements();
  WINNOW_CHECK(product.has_value());
  return *product;
}

std::string Shape::to_string() const { return fmt::format("[{}]", fmt::join(dims(), ", ")); }

}  // namespace winnow::tensor

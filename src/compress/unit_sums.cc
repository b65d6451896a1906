// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/unit_sums.h"

#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "base/error.h"
#include "compress/exact_sum.h"

namespace winnow::compress {

std::uint64_t element_count(std::span<const std::uint64_t> shape) {
  std::uint64_t count = 1;
  for (const std::uint64_t dim : shape) {
    const auto product = checked_mul(count, dim);
    WINNOW_CHECK(product.has_value());
    count = *product;
  }
  return count;
}

void Quantity::add_to_total(std::size_t element, double x) {
  const double left = add_exactly(totals[element], residuals[element], x);
  if (left != 0 || (!rest.empty() && rest.contains(element))) settle(element, left);
}

/// Makes the parts of an element those of its exact sum again.
void Quantity::settle(std::size_t element, double left) {
  if (!std::isfinite(left)) fail_data("the sum '{}' overflows at element {}", name, element);
  std::vector<double> terms = std::move(rest[element]);
  rest.erase(element);
  terms.insert(terms.end(), {totals[element], residuals[element], left});
  const std::vector<double> parts = exact_parts(terms);
  totals[element] = parts.empty() ? 0 : parts[0];
  residuals[element] = parts.size() < 2 ? 0 : parts[1];
  if (parts.size() > 2) rest[element].assign(parts.begin() + 2, parts.end());
}

Quantity& UnitSums::add(std::string name, QuantityKind kind, std::vector<std::uint64_t> shape) {
  for (const Quantity& other : quantities_) WINNOW_CHECK(other.name != name);
  quantities_.push_back({});
  Quantity& quantity = quantities_.back();
  quantity.name = std::move(name);
  quantity.kind = kind;
  quantity.shape = std::move(shape);
  return quantity;
}

std::span<double> UnitSums::add_sum(std::string name, std::vector<std::uint64_t> shape) {
  Quantity& quantity = add(std::move(name), QuantityKind::kSum, std::move(shape));
  const std::uint64_t count = element_count(quantity.shape);
  for (auto* values : {&quantity.unit, &quantity.totals, &quantity.residuals}) {
    values->resize(count);
  }
  return quantity.unit;
}

std::span<std::uint64_t> UnitSums::add_count(std::string name, std::vector<std::uint64_t> shape) {
  Quantity& quantity = add(std::move(name), QuantityKind::kCount, std::move(shape));
  quantity.counts.resize(element_count(quantity.shape));
  return quantity.counts;
}

std::span<float> UnitSums::add_maximum(std::string name, std::vector<std::uint64_t> shape) {
  Quantity& quantity = add(std::move(name), QuantityKind::kMaximum, std::move(shape));
  quantity.maxima.resize(element_count(quantity.shape));
  return quantity.maxima;
}

void UnitSums::close_unit() {
  for (Quantity& quantity : quantities_) {
    for (std::size_t i = 0; i < quantity.unit.size(); ++i) {
      const double sum = quantity.unit[i];
      if (sum == 0) continue;
      if (!std::isfinite(sum)) {
        fail_data("the sum '{}' is {} at element {}; the weights are damaged", quantity.name, sum,
                  i);
      }
      quantity.add_to_total(i, to_42_bits(sum));
      quantity.unit[i] = 0;
    }
  }
}

void UnitSums::clear() {
  for (Quantity& quantity : quantities_) {
    for (auto* values : {&quantity.unit, &quantity.totals, &quantity.residuals}) {
      std::fill(values->begin(), values->end(), 0.0);
    }
    quantity.rest.clear();
    std::fill(quantity.counts.begin(), quantity.counts.end(), std::uint64_t{0});
    std::fill(quantity.maxima.begin(), quantity.maxima.end(), 0.0F);
  }
}

Bytes UnitSums::memory() const {
  Bytes total;
  for (const Quantity& quantity : quantities_) {
    total +=
        {quantity.unit.size() * 3 * sizeof(double) +
         quantity.counts.size() * sizeof(std::uint64_t) + quantity.maxima.size() * sizeof(float)};
  }
  return total;
}

}  // namespace winnow::compress

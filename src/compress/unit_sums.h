// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What has been summed for one layer and one domain of text: f64 sums of the current unit of
// sequences, and the totals of the units before it.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/units.h"

namespace winnow::compress {

/// How values of two texts combine: F64 sums add, U64 counts add, F32 maxima take the larger.
enum class QuantityKind : std::uint8_t { kSum, kCount, kMaximum };

/// One named array of a layer. Which of the vectors are used depends on the kind.
struct Quantity {
  std::string name;
  QuantityKind kind = QuantityKind::kSum;
  std::vector<std::uint64_t> shape;
  std::vector<double> unit;       ///< sums of the current unit
  std::vector<double> totals;     ///< of the closed units, rounded
  std::vector<double> residuals;  ///< what that leaves, rounded; see exact_parts
  /// What these two leave of the few elements that need more, greatest part first.
  std::map<std::uint64_t, std::vector<double>> rest;
  std::vector<std::uint64_t> counts;
  std::vector<float> maxima;

  /// Adds a finite x to the total of an element, exactly. Throws Error{kBadData} when the total is
  /// beyond f64.
  void add_to_total(std::size_t element, double x);

 private:
  void settle(std::size_t element, double left);
};

/// The arrays that collectors have asked for. Spans that it hands out stay valid while it lives.
class UnitSums {
 public:
  UnitSums() = default;
  UnitSums(const UnitSums&) = delete;
  UnitSums& operator=(const UnitSums&) = delete;

  /// Zeros. Names are different.
  std::span<double> add_sum(std::string name, std::vector<std::uint64_t> shape);
  std::span<std::uint64_t> add_count(std::string name, std::vector<std::uint64_t> shape);
  std::span<float> add_maximum(std::string name, std::vector<std::uint64_t> shape);

  /// The one that was added last.
  Quantity& last() { return quantities_.back(); }

  /// Adds the unit's sums, rounded to 42 bits, to the totals and begins a new unit. Throws
  /// Error{kBadData} that names the quantity when a sum is not finite.
  void close_unit();
  /// Everything zero again, for another domain.
  void clear();

  const std::deque<Quantity>& quantities() const { return quantities_; }
  Bytes memory() const;

 private:
  Quantity& add(std::string name, QuantityKind kind, std::vector<std::uint64_t> shape);
  std::deque<Quantity> quantities_;
};

/// Elements of a shape.
std::uint64_t element_count(std::span<const std::uint64_t> shape);

}  // namespace winnow::compress

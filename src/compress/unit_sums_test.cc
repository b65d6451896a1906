// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/unit_sums.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/rng.h"

namespace winnow::compress::unit_sums_test {
namespace {

/// The sums of units whose magnitudes lie further apart than two f64 reach: an expert that one
/// token chose, beside one that all did.
std::vector<double> far_apart() {
  Rng rng(4);
  std::vector<double> units;
  for (int i = 0; i < 60; ++i) {
    units.push_back(std::ldexp(rng.normal(), static_cast<int>(rng.below(300)) - 150));
  }
  return units;
}

void add_units(UnitSums& sums, std::span<double> unit, std::span<const double> values) {
  for (const double value : values) {
    unit[1] = value;
    sums.close_unit();
  }
}

void expect_same(const Quantity& a, const Quantity& b) {
  EXPECT_EQ(a.totals, b.totals);
  EXPECT_EQ(a.residuals, b.residuals);
  EXPECT_EQ(a.rest, b.rest);
}

TEST(UnitSums, AddUnitsOfAnyMagnitudesToTheSameBitsInAnyOrder) {
  auto units = far_apart();
  UnitSums expected;
  add_units(expected, expected.add_sum("a", {3}), units);
  EXPECT_FALSE(expected.last().rest.empty());
  Rng rng(5);
  for (int i = 0; i < 10; ++i) {
    for (std::size_t j = units.size(); j-- > 1;) std::swap(units[j], units[rng.below(j + 1)]);
    UnitSums sums;
    add_units(sums, sums.add_sum("a", {3}), units);
    expect_same(sums.last(), expected.last());
  }
}

TEST(UnitSums, AddTotalsOfPiecesUpToTheTotalOfTheWhole) {
  const auto units = far_apart();
  UnitSums whole;
  add_units(whole, whole.add_sum("a", {3}), units);
  for (const std::size_t cut : {1, 17, 59}) {
    UnitSums a, b;
    add_units(a, a.add_sum("a", {3}), std::span(units).first(cut));
    add_units(b, b.add_sum("a", {3}), std::span(units).subspan(cut));
    a.last().add_to_total(1, b.last().totals[1]);
    a.last().add_to_total(1, b.last().residuals[1]);
    for (const double part : b.last().rest[1]) a.last().add_to_total(1, part);
    expect_same(a.last(), whole.last());
  }
}

TEST(UnitSums, ForgetEverythingWhenTheyAreCleared) {
  UnitSums sums;
  add_units(sums, sums.add_sum("a", {3}), far_apart());
  sums.clear();
  EXPECT_EQ(sums.last().totals, std::vector<double>(3));
  EXPECT_EQ(sums.last().residuals, std::vector<double>(3));
  EXPECT_TRUE(sums.last().rest.empty());
}

TEST(UnitSums, NameTheSumThatIsNotFinite) {
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    UnitSums sums;
    sums.add_sum("a", {3})[2] = bad;
    try {
      sums.close_unit();
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadData);
      EXPECT_NE(error.message().find("'a'"), std::string::npos) << error.message();
    }
  }
  UnitSums sums;
  sums.add_sum("huge", {1});
  const double huge = std::numeric_limits<double>::max();
  sums.last().add_to_total(0, huge);
  EXPECT_THROW(sums.last().add_to_total(0, huge), Error);
}

}  // namespace
}  // namespace winnow::compress::unit_sums_test

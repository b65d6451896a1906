// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/exact_sum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.h"

namespace winnow::compress::exact_sum_test {
namespace {

TEST(To42Bits, KeepsWhatFitsAndRoundsTheRest) {
  EXPECT_EQ(to_42_bits(0.0), 0.0);
  EXPECT_EQ(to_42_bits(-3.25), -3.25);
  const double fits = std::ldexp((std::uint64_t{1} << 42) - 1, -60);
  EXPECT_EQ(to_42_bits(fits), fits);
  Rng rng(1);
  for (int i = 0; i < 1000; ++i) {
    const double x = std::ldexp(rng.normal(), static_cast<int>(rng.below(200)) - 100);
    const double rounded = to_42_bits(x);
    EXPECT_LE(std::fabs(rounded - x), std::ldexp(std::fabs(x), -42));
    EXPECT_EQ(to_42_bits(rounded), rounded);
  }
}

TEST(AddExactly, GivesTheSameBitsInAnyOrderAndAnyGrouping) {
  Rng rng(2);
  std::vector<double> terms;
  for (int i = 0; i < 300; ++i) {
    // Signs cancel, and magnitudes span 2^16.
    terms.push_back(to_42_bits(std::ldexp(rng.normal(), static_cast<int>(rng.below(16)))));
  }
  const auto sum = [](const std::vector<double>& values) {
    double total = 0;
    double residual = 0;
    for (const double value : values) EXPECT_EQ(add_exactly(total, residual, value), 0);
    return std::pair(total, residual);
  };
  const auto expected = sum(terms);
  EXPECT_NE(expected.second, 0);
  for (int i = 0; i < 20; ++i) {
    for (std::size_t j = terms.size(); j-- > 1;) std::swap(terms[j], terms[rng.below(j + 1)]);
    EXPECT_EQ(sum(terms), expected);
    const auto cut = terms.begin() + static_cast<std::ptrdiff_t>(rng.below(terms.size()));
    auto [total, residual] = sum({terms.begin(), cut});
    const auto [rest, rest_residual] = sum({cut, terms.end()});
    EXPECT_EQ(add_exactly(total, residual, rest), 0);
    EXPECT_EQ(add_exactly(total, residual, rest_residual), 0);
    EXPECT_EQ(std::pair(total, residual), expected);
  }
}

TEST(AddExactly, LosesNothingThatAPlainSumWould) {
  double total = 0;
  double residual = 0;
  for (const double value : {1e15, 0.5, -1e15}) EXPECT_EQ(add_exactly(total, residual, value), 0);
  EXPECT_EQ(total, 0.5);
  EXPECT_EQ(residual, 0);
}

TEST(AddExactly, ReturnsWhatTwoNumbersCannotHold) {
  double total = 1;
  double residual = 0x1p-60;
  EXPECT_EQ(add_exactly(total, residual, 0x1p-120), 0x1p-120);
  EXPECT_EQ(total, 1);
  EXPECT_EQ(residual, 0x1p-60);
}

TEST(ExactParts, AreTheSumRoundedAndWhatThatLeaves) {
  EXPECT_TRUE(exact_parts({}).empty());
  EXPECT_TRUE(exact_parts(std::vector{1e300, -1e300}).empty());
  EXPECT_EQ(exact_parts(std::vector{1.0, 0x1p-200, 0x1p-100}),
            (std::vector{1.0, 0x1p-100, 0x1p-200}));
  // Half of the last place is a tie, to even; the least bit beyond it, on either side, decides.
  EXPECT_EQ(exact_parts(std::vector{1.0, 0x1p-53}), (std::vector{1.0, 0x1p-53}));
  EXPECT_EQ(exact_parts(std::vector{1.0, 0x1p-53, 0x1p-300})[0], 1 + 0x1p-52);
  EXPECT_EQ(exact_parts(std::vector{1.0, 0x1p-53, -0x1p-300})[0], 1.0);
  const double odd = 1 + 0x1p-52;
  EXPECT_EQ(exact_parts(std::vector{odd, 0x1p-53})[0], 1 + 0x1p-51);
  EXPECT_EQ(exact_parts(std::vector{odd, 0x1p-53, -0x1p-300})[0], odd);
}

TEST(ExactParts, DependOnTheSumAlone) {
  Rng rng(3);
  std::vector<double> terms;
  for (int i = 0; i < 200; ++i) {
    terms.push_back(std::ldexp(rng.normal(), static_cast<int>(rng.below(400)) - 200));
  }
  const auto expected = exact_parts(terms);
  EXPECT_GT(expected.size(), 5U);
  for (int i = 0; i < 20; ++i) {
    for (std::size_t j = terms.size(); j-- > 1;) std::swap(terms[j], terms[rng.below(j + 1)]);
    EXPECT_EQ(exact_parts(terms), expected);
  }
}

}  // namespace
}  // namespace winnow::compress::exact_sum_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/exact_sum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.h"

namespace winnow::compress {
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
    for (const double value : values) add_exactly(total, residual, value);
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
    add_exactly(total, residual, rest);
    add_exactly(total, residual, rest_residual);
    EXPECT_EQ(std::pair(total, residual), expected);
  }
}

TEST(AddExactly, LosesNothingThatAPlainSumWould) {
  double total = 0;
  double residual = 0;
  for (const double value : {1e15, 0.5, -1e15}) add_exactly(total, residual, value);
  EXPECT_EQ(total, 0.5);
  EXPECT_EQ(residual, 0);
}

}  // namespace
}  // namespace winnow::compress

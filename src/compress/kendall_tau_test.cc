// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/kendall_tau.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.h"

namespace winnow::compress::kendall_tau_test {
namespace {

using Values = std::vector<double>;

TEST(KendallTau, IsOneForTheSameOrderAndMinusOneForTheReverse) {
  const Values rising = {1, 2, 5, 9, 9.5};
  EXPECT_EQ(kendall_tau(rising, Values{-3, 0, 0.1, 4, 100}), 1.0);
  EXPECT_EQ(kendall_tau(rising, Values{5, 4, 3, 2, 1}), -1.0);
}

TEST(KendallTau, CountsPairsOfAWorkedExample) {
  // Of the six pairs of 1 2 3 4 with 3 1 4 2, three are ordered alike: (1,3), (2,3), (2,4).
  EXPECT_EQ(kendall_tau(Values{1, 2, 3, 4}, Values{3, 1, 4, 2}), 0.0);
  // Of 45 pairs 37 are ordered alike and 8 otherwise.
  const Values a = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  const Values b = {4, 3, 1, 2, 6, 5, 8, 9, 7, 10};
  EXPECT_DOUBLE_EQ(kendall_tau(a, b), (37.0 - 8.0) / 45.0);
}

TEST(KendallTau, LeavesTiedPairsOutOfWhatCouldAgree) {
  // a orders 5 of 6 pairs and b 4 of 6; 4 pairs are ordered by both, all alike.
  EXPECT_DOUBLE_EQ(kendall_tau(Values{1, 1, 2, 3}, Values{1, 1, 2, 2}), 4.0 / std::sqrt(5.0 * 4.0));
  // Each orders the pair that the other does not; 4 pairs are ordered by both, all alike.
  EXPECT_DOUBLE_EQ(kendall_tau(Values{1, 2, 3, 3}, Values{5, 5, 7, 8}), 4.0 / std::sqrt(5.0 * 5.0));
}

TEST(KendallTau, IsNothingWhereOneOrdersNothing) {
  EXPECT_EQ(kendall_tau(Values{1, 2, 3}, Values{4, 4, 4}), 0.0);
  EXPECT_EQ(kendall_tau(Values{1}, Values{2}), 0.0);
  EXPECT_EQ(kendall_tau(Values{}, Values{}), 0.0);
}

/// From the definition with signs over ordered pairs, both (i, j) and (j, i).
double from_definition(const Values& a, const Values& b) {
  const auto sign = [](double x) { return x > 0 ? 1.0 : x < 0 ? -1.0 : 0.0; };
  double both = 0, only_a = 0, only_b = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    for (std::size_t j = 0; j < a.size(); ++j) {
      both += sign(a[i] - a[j]) * sign(b[i] - b[j]);
      only_a += std::pow(sign(a[i] - a[j]), 2);
      only_b += std::pow(sign(b[i] - b[j]), 2);
    }
  }
  return only_a * only_b > 0 ? both / std::sqrt(only_a * only_b) : 0;
}

TEST(KendallTau, AgreesWithItsDefinitionOnRandomValuesWithTies) {
  Rng rng(3);
  for (int round = 0; round < 200; ++round) {
    const std::size_t count = 2 + rng.below(20);
    Values a, b;
    for (std::size_t i = 0; i < count; ++i) {
      a.push_back(static_cast<double>(rng.below(6)));
      b.push_back(static_cast<double>(rng.below(6)) + (round % 2 == 0 ? 0.5 * a.back() : 0.0));
    }
    EXPECT_NEAR(kendall_tau(a, b), from_definition(a, b), 1e-14);
    EXPECT_EQ(kendall_tau(a, b), kendall_tau(b, a));
  }
}

}  // namespace
}  // namespace winnow::compress::kendall_tau_test

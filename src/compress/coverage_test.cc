// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/coverage.h"

#include <gtest/gtest.h>

namespace winnow::compress::coverage_test {
namespace {

using Values = std::vector<double>;

TEST(RankAgreement, IsOneForTheSameOrderAndMinusOneForTheReverse) {
  EXPECT_EQ(rank_agreement(Values{1, 2, 3, 9}, Values{0, 5, 6, 7}), 1);
  EXPECT_EQ(rank_agreement(Values{1, 2, 3}, Values{3, 2, 1}), -1);
}

TEST(RankAgreement, CountsPairsByHand) {
  // Of the six pairs five agree.
  EXPECT_DOUBLE_EQ(rank_agreement(Values{1, 2, 3, 4}, Values{1, 2, 4, 3}), 4.0 / 6);
  // One tie in b: 5 untied pairs there, 6 in a, all 5 agree.
  EXPECT_DOUBLE_EQ(rank_agreement(Values{1, 2, 3, 4}, Values{1, 1, 3, 4}), 5 / std::sqrt(30.0));
}

TEST(RankAgreement, OfValuesWithoutAnOrderIsZeroAndNeverNaN) {
  EXPECT_EQ(rank_agreement(Values{1, 1, 1}, Values{1, 2, 3}), 0);
  EXPECT_EQ(rank_agreement(Values{}, Values{}), 0);
  EXPECT_EQ(rank_agreement(Values{4}, Values{5}), 0);
}

}  // namespace
}  // namespace winnow::compress::coverage_test

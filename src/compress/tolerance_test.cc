// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/tolerance.h"

#include <gtest/gtest.h>

#include <cmath>

namespace winnow::compress::tolerance_test {
namespace {

/// Divergence falls tenfold for each 1000 bytes; the measured one is `ratio` times the predicted.
ToleranceSearch falling(double tolerance, double ratio) {
  const auto predicted = [](std::uint64_t budget) {
    return budget >= 9000 ? 0.0 : std::pow(10.0, -static_cast<double>(budget) / 1000.0);
  };
  return {tolerance, 1000, 9000, predicted,
          [=](std::uint64_t budget) { return ratio * predicted(budget); }};
}

TEST(Tolerance, IsMetFromBelowWhateverThePredictionErrsBy) {
  for (const double ratio : {0.2, 0.7, 1.0, 1.4, 3.0, 40.0}) {
    const ToleranceSearch search = falling(1e-3, ratio);
    const ToleranceResult result = smallest_within(search);
    EXPECT_LE(search.measured(result.budget), 1e-3) << ratio;
    EXPECT_GE(search.measured(result.budget), 0.85e-3) << ratio;
    EXPECT_EQ(result.measured_kl, search.measured(result.budget));
    EXPECT_LE(result.attempts.size(), 6U);
  }
}

TEST(Tolerance, OfMoreThanTheSmallestLosesTheSmallestIsTaken) {
  const ToleranceResult result = smallest_within(falling(1.0, 1.0));
  EXPECT_EQ(result.budget, 1000U);
  EXPECT_EQ(result.attempts.size(), 1U);
}

TEST(Tolerance, ThatNothingMeetsTakesTheLargest) {
  ToleranceSearch search = falling(1e-3, 1.0);
  search.measured = [](std::uint64_t) { return 1.0; };
  EXPECT_EQ(smallest_within(search).budget, 9000U);
}

}  // namespace
}  // namespace winnow::compress::tolerance_test

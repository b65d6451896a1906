// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/low_rank.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "compress/quantizer_test_support.h"
#include "compress/test_workers.h"

namespace winnow::compress::low_rank_test {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): the helpers beside this file

constexpr double kDamping = 0.01;

/// error - left right.
tensor::Matrix<float> rest(ConstMatrix error, const LowRank& correction) {
  tensor::Matrix<float> result(error.rows, error.cols);
  product(testing::best_kernels(), correction.left.view(), correction.right.view(), result.view());
  for (std::size_t r = 0; r < error.rows; ++r) {
    for (std::size_t j = 0; j < error.cols; ++j) {
      result.row(r)[j] = error.row(r)[j] - result.row(r)[j];
    }
  }
  return result;
}

/// tr(D (H + ridge) D^T) by definition.
double cost(const tensor::Matrix<float>& errors, const Hessian& hessian) {
  const double ridge = ridge_of(hessian, kDamping);
  double sum = 0;
  for (std::size_t r = 0; r < errors.rows(); ++r) {
    for (std::size_t i = 0; i < errors.cols(); ++i) {
      for (std::size_t j = 0; j < errors.cols(); ++j) {
        const double h = hessian.at(i, j) + (i == j ? ridge : 0);
        sum += double{errors.row(r)[i]} * h * errors.row(r)[j];
      }
    }
  }
  return sum;
}

class BothShapes : public ::testing::TestWithParam<std::pair<std::size_t, std::size_t>> {
 protected:
  std::size_t full() const { return std::min(GetParam().first, GetParam().second); }
  tensor::Matrix<float> error = random_matrix(1, GetParam().first, GetParam().second);
  Hessian hessian = correlated_hessian(2, 200, GetParam().second);
};
INSTANTIATE_TEST_SUITE_P(Shapes, BothShapes,
                         ::testing::Values(std::pair<std::size_t, std::size_t>{24, 40},
                                           std::pair<std::size_t, std::size_t>{40, 24}));

// Both factors of each product are rounded to f32, and the products are summed in f32: at most a
// unit for each term of the sum and two for its factors.
TEST_P(BothShapes, FullRankGivesTheWholeErrorBack) {
  for (const Hessian* weighting : {static_cast<const Hessian*>(nullptr), &std::as_const(hessian)}) {
    const LowRank all = low_rank_correction(error.view(), weighting, kDamping, full());
    EXPECT_EQ(all.residual, 0);
    const auto left = rest(error.view(), all);
    for (std::size_t r = 0; r < error.rows(); ++r) {
      for (std::size_t j = 0; j < error.cols(); ++j) {
        double terms = 0;
        for (std::size_t k = 0; k < full(); ++k) {
          terms += std::fabs(double{all.left.row(r)[k]} * all.right.row(k)[j]);
        }
        ASSERT_NEAR(left.row(r)[j], 0, static_cast<double>(full() + 2) * 0x1p-24 * terms);
      }
    }
  }
}

TEST_P(BothShapes, WhatIsLeftIsTheSumOfTheDroppedSquares) {
  for (std::size_t rank = 0; rank < full(); rank += 5) {
    const LowRank some = low_rank_correction(error.view(), &hessian, kDamping, rank);
    EXPECT_NEAR(cost(rest(error.view(), some), hessian), some.residual, 1e-5 * some.residual);
  }
}

TEST_P(BothShapes, LeavesLessWithEveryRankMore) {
  double before = INFINITY;
  for (std::size_t rank = 0; rank <= full(); ++rank) {
    const double left = low_rank_correction(error.view(), &hessian, kDamping, rank).residual;
    EXPECT_LT(left, before);
    before = left;
  }
}

TEST_P(BothShapes, WeightedWithTheInputsLeavesLessThanWithout) {
  for (const std::size_t rank : {1, 4, 8}) {
    const LowRank weighted = low_rank_correction(error.view(), &hessian, kDamping, rank);
    const LowRank plain = low_rank_correction(error.view(), nullptr, kDamping, rank);
    EXPECT_LT(cost(rest(error.view(), weighted), hessian),
              cost(rest(error.view(), plain), hessian));
  }
}

TEST(LowRank, RankZeroGivesNothing) {
  const auto error = random_matrix(1, 3, 4);
  const LowRank none = low_rank_correction(error.view(), nullptr, kDamping, 0);
  double energy = 0;
  for (const float e : error.flat()) energy += double{e} * e;
  EXPECT_NEAR(none.residual, energy, 1e-12 * energy);
  EXPECT_EQ(none.left.cols(), 0U);
}

TEST(LowRank, OfAnInputThatWasNeverSeenIsThePlainOne) {
  const auto error = random_matrix(1, 6, 8);
  const Hessian unseen(8);
  const LowRank weighted = low_rank_correction(error.view(), &unseen, kDamping, 3);
  const LowRank plain = low_rank_correction(error.view(), nullptr, kDamping, 3);
  EXPECT_NEAR(weighted.residual, plain.residual, 1e-9 * plain.residual);
}

}  // namespace
}  // namespace winnow::compress::low_rank_test

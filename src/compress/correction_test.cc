// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Corrections of single matrices: what they give back, under which text, and when they are nothing.
#include "compress/correction.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "compress/linear_algebra.h"
#include "compress/low_rank.h"
#include "compress/quantizer_test_support.h"
#include "compress/test_workers.h"

namespace winnow::compress::correction_test {
namespace {

using testing::correlated_hessian;
using testing::random_matrix;

constexpr std::size_t kRows = 24;
constexpr std::size_t kCols = 64;

class FitCorrection : public ::testing::Test {
 protected:
  FitCorrection() {
    const std::size_t blocks = kCols / codec_.block_size;
    bytes_.resize(kRows * blocks * codec_.block_bytes);
    packed_ = {&codec_, bytes_.data(), kRows, kCols};
    for (std::size_t r = 0; r < kRows; ++r) {
      codec_.encode(weights_.row(r).data(), blocks, nullptr,
                    bytes_.data() + r * packed_.row_bytes());
    }
  }
  Correction fit(std::size_t rank, bool weighted = false) {
    return fit_correction(std::as_const(weights_).view(), packed_, hessian_, rank, weighted, pool_);
  }
  std::vector<float> decoded() const {
    std::vector<float> values(kRows * kCols);
    codec_.decode(bytes_.data(), values.size() / codec_.block_size, values.data());
    return values;
  }
  const quant::Codec& codec_ = *quant::find_codec("Q4_0");
  tensor::Matrix<float> weights_ = random_matrix(1, kRows, kCols);
  PreparedHessian hessian_{correlated_hessian(2, 300, kCols), correlated_hessian(3, 300, kCols)};
  std::vector<std::byte> bytes_;
  quant::PackedMatrix packed_;
  testing::OwnWorkers pool_{2};
};

// Each factor's value is rounded to 11 bits, so a product to two halves of a unit of 2^-10 of
// itself.
TEST_F(FitCorrection, FullRankGivesTheWeightsBackToTheRoundingOfItsFactors) {
  for (const bool weighted : {false, true}) {
    const Correction all = fit(kRows, weighted);
    ASSERT_EQ(all.factors.size(), 2 * kRows * (kRows + kCols));
    std::vector<float> factors(all.factors.size() / 2);
    quant::find_codec("F16")->decode(all.factors.data(), factors.size(), factors.data());
    const float* const right = factors.data() + kRows * kRows;
    const std::vector<float> base = decoded();
    for (std::size_t r = 0; r < kRows; ++r) {
      for (std::size_t j = 0; j < kCols; ++j) {
        double sum = base[r * kCols + j];
        double terms = 0;
        for (std::size_t k = 0; k < kRows; ++k) {
          const double term = double{factors[r * kRows + k]} * right[k * kCols + j];
          sum += term;
          terms += std::fabs(term);
        }
        ASSERT_NEAR(sum, weights_.row(r)[j], 0x1p-10 * terms + 1e-6);
      }
    }
    EXPECT_GT(all.share, 0.999);
  }
}

TEST_F(FitCorrection, TakesMoreOfTheLossAwayWithEveryRankMore) {
  for (const bool weighted : {false, true}) {
    double before = 0;
    for (const std::size_t rank : {1, 2, 4, 8, 16}) {
      const double share = fit(rank, weighted).share;
      EXPECT_GT(share, before) << rank;
      before = share;
    }
    EXPECT_LT(before, 1.0);
  }
}

TEST_F(FitCorrection, WeightedWithTheInputsTakesMoreAwayThanPlain) {
  for (const std::size_t rank : {1, 4, 8}) EXPECT_GT(fit(rank, true).share, fit(rank, false).share);
}

TEST_F(FitCorrection, IsZeroWhereNothingWasLost) {
  const std::vector<float> base = decoded();
  std::copy(base.begin(), base.end(), weights_.flat().begin());
  const Correction none = fit(4, /*weighted=*/true);
  EXPECT_EQ(none.share, 0.0);
  EXPECT_TRUE(std::all_of(none.factors.begin(), none.factors.end(),
                          [](std::byte b) { return b == std::byte{0}; }));
}

TEST_F(FitCorrection, IsZeroWhereNoTokenJudges) {
  hessian_ = PreparedHessian(correlated_hessian(2, 300, kCols), Hessian(kCols));
  const Correction none = fit(4);
  EXPECT_EQ(none.share, 0.0);
  EXPECT_TRUE(std::all_of(none.factors.begin(), none.factors.end(),
                          [](std::byte b) { return b == std::byte{0}; }));
}

// What the short cut for large matrices leaves is at most a hundredth more than the best possible.
TEST(LeadingSingularValues, LoseLittleOfAFlatSpectrum) {
  constexpr std::size_t kRank = 8;
  const auto error = random_matrix(5, 160, 200);
  tensor::Matrix<double> wide(error.rows(), error.cols());
  std::copy(error.flat().begin(), error.flat().end(), wide.flat().begin());
  const SingularValues exact = singular_values(std::as_const(wide).view());
  ASSERT_LT(leading_singular_values(std::as_const(wide).view(), kRank).values.size(), 160U);
  double best = 0;
  for (std::size_t k = kRank; k < exact.values.size(); ++k) {
    best += exact.values[k] * exact.values[k];
  }
  const LowRank found = low_rank_correction(error.view(), nullptr, 0.01, kRank);
  EXPECT_GE(found.residual, best * (1 - 1e-12));
  EXPECT_LE(found.residual, best * 1.01);
  double left = 0;
  tensor::Matrix<float> product_of(error.rows(), error.cols());
  product(testing::best_kernels(), found.left.view(), found.right.view(), product_of.view());
  for (std::size_t i = 0; i < error.flat().size(); ++i) {
    const double rest = double{error.flat()[i]} - product_of.flat()[i];
    left += rest * rest;
  }
  EXPECT_NEAR(left, found.residual, 1e-5 * left);
}

}  // namespace
}  // namespace winnow::compress::correction_test

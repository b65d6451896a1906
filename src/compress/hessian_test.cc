// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/hessian.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "compress/damped_hessian.h"
#include "compress/linear_algebra.h"

namespace winnow::compress::hessian_test {
namespace {

tensor::Matrix<float> random_inputs(std::uint64_t seed, std::size_t tokens, std::size_t size) {
  Rng rng(seed);
  tensor::Matrix<float> x(tokens, size);
  for (float& v : x.flat()) v = static_cast<float>(rng.normal());
  for (std::size_t t = 0; t < tokens; ++t) {  // correlated columns
    for (std::size_t j = 1; j < size; ++j) x.row(t)[j] += 0.7F * x.row(t)[j - 1];
  }
  return x;
}

std::vector<float> random_weights(std::uint64_t seed, std::size_t count) {
  Rng rng(seed);
  std::vector<float> weights(count);
  for (float& w : weights) w = static_cast<float>(rng.uniform());
  return weights;
}

double by_definition(const tensor::Matrix<float>& x, const std::vector<float>& w, std::size_t i,
                     std::size_t j) {
  double sum = 0;
  for (std::size_t t = 0; t < x.rows(); ++t) sum += double{w[t]} * x.row(t)[i] * x.row(t)[j];
  return sum;
}

// The products of 64 tokens are summed in f32: |error| <= 66 * 2^-24 * sum |terms| of a stretch,
// and |terms| of H_ij sum to sqrt(H_ii H_jj) at most. The f64 sums over stretches add nothing.
constexpr double kSumTolerance = 66 * 0x1p-24;

TEST(Hessian, IsTheWeightedGramMatrixOfTheInputs) {
  os::ThreadPool pool(2);
  for (const std::size_t size : {1, 63, 64, 65, 130}) {
    for (const std::size_t tokens : {1, 64, 150}) {
      const auto x = random_inputs(1, tokens, size);
      const auto weights = random_weights(2, tokens);
      Hessian hessian(size);
      hessian.add(x.view(), weights, pool);
      for (std::size_t i = 0; i < size; ++i) {
        for (std::size_t j = 0; j < size; ++j) {
          const double bound = kSumTolerance * std::sqrt(by_definition(x, weights, i, i) *
                                                         by_definition(x, weights, j, j));
          ASSERT_NEAR(hessian.at(i, j), by_definition(x, weights, i, j), bound);
          ASSERT_EQ(hessian.at(i, j), hessian.at(j, i));
        }
      }
      EXPECT_EQ(hessian.tokens(), static_cast<double>(tokens));
    }
  }
}

TEST(Hessian, HasTheSumsOfSquaresOnItsDiagonal) {
  os::ThreadPool pool(1);
  const auto x = random_inputs(3, 200, 40);
  Hessian hessian(40);
  hessian.add(x.view(), {}, pool);
  const std::vector<double> diagonal = hessian.diagonal();
  double trace = 0;
  for (std::size_t j = 0; j < 40; ++j) {
    const double expected = by_definition(x, std::vector<float>(200, 1.0F), j, j);
    EXPECT_NEAR(diagonal[j], expected, kSumTolerance * expected);
    trace += diagonal[j];
  }
  EXPECT_DOUBLE_EQ(hessian.trace(), trace);
  EXPECT_EQ(hessian.weight(), 200.0);
}

TEST(Hessian, IsTheSameInPiecesAndWithAnyNumberOfThreads) {
  const auto x = random_inputs(4, 333, 96);
  const auto weights = random_weights(5, 333);
  os::ThreadPool one(1);
  os::ThreadPool three(3);
  Hessian whole(96);
  whole.add(x.view(), weights, one);
  Hessian parallel(96);
  parallel.add(x.view(), weights, three);
  Hessian pieces(96);
  Hessian second(96);
  pieces.add(x.view().rows_from(0, 100), std::span(weights).first(100), one);
  second.add(x.view().rows_from(100, 233), std::span(weights).subspan(100), one);
  pieces.add(second);
  for (std::size_t i = 0; i < 96; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      ASSERT_EQ(whole.at(i, j), parallel.at(i, j));
      const double scale = std::sqrt(whole.at(i, i) * whole.at(j, j));
      ASSERT_NEAR(whole.at(i, j), pieces.at(i, j), 1e-6 * scale);
    }
  }
  EXPECT_EQ(whole.tokens(), pieces.tokens());
}

TEST(Hessian, HasNoNegativeDirection) {
  os::ThreadPool pool(1);
  const auto x = random_inputs(6, 20, 64);  // rank 20 of 64
  Hessian hessian(64);
  hessian.add(x.view(), {}, pool);
  EXPECT_TRUE(inverse_factor(hessian.dense(ridge_of(hessian, 1e-4)).view()).has_value());
  // Products are added in f32: eigenvalues that are zero come out within its rounding of the trace.
  EXPECT_FALSE(inverse_factor(hessian.dense().view()).has_value());
  const double rounding = 1e-7 * hessian.trace();
  EXPECT_TRUE(inverse_factor(hessian.dense(rounding).view()).has_value());
}

TEST(Hessian, FollowsDividedInputs) {
  os::ThreadPool pool(1);
  auto x = random_inputs(12, 60, 24);
  std::vector<float> scales(24);
  for (std::size_t j = 0; j < scales.size(); ++j) scales[j] = std::ldexp(1.0F, int(j % 5) - 2);
  Hessian hessian(24);
  hessian.add(x.view(), {}, pool);
  for (std::size_t t = 0; t < x.rows(); ++t) {
    for (std::size_t j = 0; j < 24; ++j) x.row(t)[j] /= scales[j];
  }
  Hessian divided(24);
  divided.add(x.view(), {}, pool);
  const Hessian followed = hessian.of_divided_inputs(scales);
  for (std::size_t i = 0; i < 24; ++i) {  // powers of two, so exactly
    for (std::size_t j = 0; j <= i; ++j) ASSERT_EQ(followed.at(i, j), divided.at(i, j));
  }
  EXPECT_EQ(followed.tokens(), 60.0);
}

TEST(Hessian, RefusesValuesThatAreNotFinite) {
  os::ThreadPool pool(1);
  auto x = random_inputs(7, 3, 4);
  x.row(1)[2] = std::numeric_limits<float>::quiet_NaN();
  Hessian hessian(4);
  try {
    hessian.add(x.view(), {}, pool);
    FAIL() << "accepted NaN";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadData);
    EXPECT_NE(std::string(error.what()).find("row 1 of 3"), std::string::npos);
  }
  x.row(1)[2] = 0;
  const std::vector<float> weights = {1.0F, -1.0F, 1.0F};
  EXPECT_THROW(hessian.add(x.view(), weights, pool), Error);
  EXPECT_EQ(hessian.trace(), 0.0);
}

class Shrinkage : public ::testing::Test {
 protected:
  Shrinkage() {
    os::ThreadPool pool(1);
    layer.add(random_inputs(8, 500, 16).view(), {}, pool);
    auto x = random_inputs(9, 10, 16);
    for (float& v : x.flat()) v *= 3;
    expert.add(x.view(), {}, pool);
  }
  Hessian layer{16};
  Hessian expert{16};
};

TEST_F(Shrinkage, GivesAnExpertWithoutTokensTheLayersMatrix) {
  const Hessian shrunk = shrunk_towards(Hessian(16), layer, 8);
  for (std::size_t i = 0; i < 16; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      EXPECT_NEAR(shrunk.at(i, j), 8.0 / 500 * layer.at(i, j), 1e-14 * layer.trace());
    }
  }
  EXPECT_DOUBLE_EQ(shrunk.tokens(), 8.0);
}

TEST_F(Shrinkage, KeepsTheEnergyPerTokenOfTheExpert) {
  const Hessian shrunk = shrunk_towards(expert, layer, 8);
  // 10 tokens of its own and 8 that carry as much energy each.
  EXPECT_NEAR(shrunk.trace(), 1.8 * expert.trace(), 1e-12 * expert.trace());
  EXPECT_NE(shrunk.at(3, 2) / expert.at(3, 2), shrunk.at(9, 8) / expert.at(9, 8));
}

TEST_F(Shrinkage, ChangesNothingWhenTheLayerSawNoToken) {
  const Hessian shrunk = shrunk_towards(expert, Hessian(16), 8);
  EXPECT_EQ(shrunk.trace(), expert.trace());
  const Hessian nothing = shrunk_towards(Hessian(16), Hessian(16), 8);
  EXPECT_EQ(nothing.trace(), 0.0);
  EXPECT_EQ(ridge_of(nothing, 0.01), 1.0);  // and the damped matrix is the identity
}

// ---- DampedHessian ----

TEST(DampedHessian, FactorsTheInverse) {
  os::ThreadPool pool(1);
  constexpr std::size_t kSize = 64;
  Hessian hessian(kSize);
  hessian.add(random_inputs(10, 300, kSize).view(), {}, pool);
  for (const ColumnOrder order : {ColumnOrder::kStorage, ColumnOrder::kByImportance}) {
    const DampedHessian damped = damp(hessian, 0.01, 32, order);
    // U^T U h = 1: f32 storage of U costs 2^-24 per element, amplified by the condition number,
    // which the ridge keeps below trace / ridge = 64 / 0.01.
    for (std::size_t i = 0; i < kSize; ++i) {
      for (std::size_t j = 0; j < kSize; ++j) {
        double sum = 0;
        for (std::size_t k = 0; k < kSize; ++k) {
          double inverse = 0;
          for (std::size_t l = 0; l <= std::min(i, k); ++l) {
            inverse += double{damped.factor.row(l)[i]} * damped.factor.row(l)[k];
          }
          sum += inverse * damped.h.row(damped.order[k])[damped.order[j]];
        }
        ASSERT_NEAR(sum, i == j ? 1.0 : 0.0, 6400 * 4 * 0x1p-24);
      }
    }
  }
}

TEST(DampedHessian, KeepsBlocksTogetherAndPutsTheHeaviestFirst) {
  os::ThreadPool pool(1);
  tensor::Matrix<float> x(1, 8);
  const float values[] = {1, 2, 1, 0, 3, 4, 0, 4};
  std::copy(std::begin(values), std::end(values), x.row(0).begin());
  Hessian hessian(8);
  hessian.add(x.view(), {}, pool);
  const std::vector<std::size_t> expected = {5, 7, 4, 6, 1, 0, 2, 3};
  EXPECT_EQ(damp(hessian, 0.01, 4, ColumnOrder::kByImportance).order, expected);
  const std::vector<std::size_t> storage = {0, 1, 2, 3, 4, 5, 6, 7};
  EXPECT_EQ(damp(hessian, 0.01, 4, ColumnOrder::kStorage).order, storage);
}

TEST(Hessian, OfSomeInputsIsThatOfTheirColumns) {
  os::ThreadPool pool(1);
  const tensor::Matrix<float> x = random_inputs(13, 50, 8);
  const std::vector<std::uint32_t> kept = {1, 4, 7};
  tensor::Matrix<float> some(50, kept.size());
  for (std::size_t t = 0; t < 50; ++t) {
    for (std::size_t i = 0; i < kept.size(); ++i) some.row(t)[i] = x.row(t)[kept[i]];
  }
  Hessian all(8);
  all.add(x.view(), {}, pool);
  Hessian expected(kept.size());
  expected.add(std::as_const(some).view(), {}, pool);
  const Hessian found = all.of_some_inputs(kept);
  EXPECT_EQ(found.tokens(), 50);
  for (std::size_t i = 0; i < kept.size(); ++i) {
    for (std::size_t j = 0; j <= i; ++j) EXPECT_EQ(found.at(i, j), expected.at(i, j));
  }
}

// In processing order 1 / U_jj^2 is the Schur complement: the last column has no one to make up for
// it and keeps all of H_jj.
TEST(DampedHessian, KnowsWhatLaterColumnsCannotMakeUpFor) {
  os::ThreadPool pool(1);
  Hessian hessian(32);
  hessian.add(random_inputs(11, 100, 32).view(), {}, pool);
  const DampedHessian damped = damp(hessian, 0.01, 32, ColumnOrder::kByImportance);
  for (std::size_t j = 0; j < 32; ++j) {
    EXPECT_LE(damped.conditional[j], damped.h.row(j)[j] * 1.00001F);
  }
  const std::size_t last = damped.order.back();
  EXPECT_NEAR(damped.conditional[last], damped.h.row(last)[last], 1e-4 * damped.h.row(last)[last]);
}

TEST(DampedHessian, RaisesTheRidgeUntilTheFactorExists) {
  os::ThreadPool pool(1);
  tensor::Matrix<float> x(1, 32);
  std::fill(x.flat().begin(), x.flat().end(), 1.0F);  // rank one
  Hessian hessian(32);
  hessian.add(x.view(), {}, pool);
  const DampedHessian damped = damp(hessian, 1e-18, 32, ColumnOrder::kStorage);
  EXPECT_GT(damped.ridge, 1e-18);
  for (const float u : damped.factor.flat()) EXPECT_TRUE(std::isfinite(u));
}

}  // namespace
}  // namespace winnow::compress::hessian_test

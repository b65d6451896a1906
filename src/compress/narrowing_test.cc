// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Which channels go, and what the others make up for: against least squares solved for every
// choice.
#include "compress/narrowing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"
#include "compress/test_workers.h"

namespace winnow::compress::narrowing_test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using testing::OwnWorkers;

constexpr std::size_t kRows = 5;
constexpr std::size_t kChannels = 12;

/// Of 12 channels that have much in common.
struct Problem {
  explicit Problem(std::uint64_t seed, OwnWorkers& workers)
      : weights(kRows, kChannels), hessian(kChannels), held_out(kChannels), gram(kChannels) {
    Rng rng(seed);
    for (float& value : weights.flat()) value = static_cast<float>(rng.normal());
    for (Hessian* of : {&hessian, &held_out}) {
      tensor::Matrix<float> inputs(40, kChannels);
      for (std::size_t t = 0; t < inputs.rows(); ++t) {
        const double common = rng.normal();
        for (float& value : inputs.row(t)) value = static_cast<float>(common + 0.7 * rng.normal());
      }
      of->add(inputs.view(), {}, workers);
    }
    gram.add(std::as_const(weights).view(), {}, workers);
  }

  tensor::Matrix<float> weights;
  Hessian hessian, held_out, gram;
};

/// tr(D h D^T) for D [rows, n].
double quadratic(const tensor::Matrix<double>& d, const tensor::Matrix<double>& h) {
  double total = 0;
  for (std::size_t r = 0; r < d.rows(); ++r) {
    for (std::size_t i = 0; i < h.rows(); ++i) {
      for (std::size_t j = 0; j < h.rows(); ++j) total += d.row(r)[i] * h.row(i)[j] * d.row(r)[j];
    }
  }
  return total;
}

/// W less the nearest matrix under h whose columns are zero outside `kept`: least squares for each
/// row.
tensor::Matrix<double> least_change(const tensor::Matrix<float>& weights,
                                    const tensor::Matrix<double>& h,
                                    std::span<const std::uint32_t> kept) {
  tensor::Matrix<double> among(kept.size(), kept.size());
  for (std::size_t i = 0; i < kept.size(); ++i) {
    for (std::size_t j = 0; j < kept.size(); ++j) among.row(i)[j] = h.row(kept[i])[kept[j]];
  }
  tensor::Matrix<double> change(weights.rows(), weights.cols());
  for (std::size_t r = 0; r < weights.rows(); ++r) {
    std::vector<double> right;
    for (const std::uint32_t channel : kept) {
      double sum = 0;
      for (std::size_t j = 0; j < h.rows(); ++j) {
        sum += h.row(channel)[j] * double{weights.row(r)[j]};
      }
      right.push_back(sum);
    }
    std::copy(weights.row(r).begin(), weights.row(r).end(), change.row(r).begin());
    if (kept.empty()) continue;
    const auto row = solve_symmetric(std::as_const(among).view(), right);
    for (std::size_t i = 0; i < kept.size(); ++i) change.row(r)[kept[i]] -= (*row)[i];
  }
  return change;
}

std::vector<std::uint32_t> without(std::vector<std::uint32_t> channels, std::uint32_t channel) {
  std::erase(channels, channel);
  return channels;
}

tensor::Matrix<double> inverse_of(const tensor::Matrix<double>& h) {
  tensor::Matrix<double> identity(h.rows(), h.rows());
  for (std::size_t i = 0; i < h.rows(); ++i) identity.row(i)[i] = 1;
  return std::move(*solve_symmetric(h.view(), std::as_const(identity).view()));
}

TEST(Narrowing, EachStepRemovesTheChannelThatAddsLeastAndCostsWhatItAdds) {
  OwnWorkers workers(2);
  for (std::uint64_t seed = 1; seed < 6; ++seed) {
    const Problem problem(seed, workers);
    const tensor::Matrix<double> h = problem.hessian.dense(ridge_of(problem.hessian, 0.01));
    const auto order = removal_order(problem.gram, inverse_of(h), kChannels, workers);
    ASSERT_EQ(order.size(), kChannels);
    std::vector<std::uint32_t> kept = other_channels({}, kChannels);
    double before = 0;
    for (const ChannelRemoval& step : order) {
      double least = INFINITY;
      for (const std::uint32_t channel : kept) {
        least =
            std::min(least, quadratic(least_change(problem.weights, h, without(kept, channel)), h));
      }
      kept = without(kept, step.channel);
      const double after = quadratic(least_change(problem.weights, h, kept), h);
      // The Gram matrix of the weights is summed in f32.
      EXPECT_NEAR(after, least, 1e-6 * least);
      EXPECT_NEAR(before + step.cost, after, 1e-5 * after);
      before = after;
    }
  }
}

TEST(Narrowing, EqualChannelsGoInTheirOrder) {
  OwnWorkers workers(1);
  tensor::Matrix<float> same(2, 4);
  std::fill(same.flat().begin(), same.flat().end(), 1.0F);
  Hessian gram(4);
  gram.add(std::as_const(same).view(), {}, workers);
  const auto order = removal_order(gram, Hessian::identity(4).dense(), 4, workers);
  for (std::uint32_t i = 0; i < 4; ++i) EXPECT_EQ(order[i].channel, i);
}

TEST(Narrowing, TheOthersMakeUpAsWellAsLeastSquaresCan) {
  OwnWorkers workers(3);
  const Problem problem(7, workers);
  const std::vector<std::uint32_t> kept = {0, 2, 3, 7, 8, 11};
  const auto shares = compensation(problem.hessian, kept, 0.01);
  const auto narrow = compensated(problem.weights.view(), kept, shares, workers);
  const tensor::Matrix<double> h = problem.hessian.dense(ridge_of(problem.hessian, 0.01));
  // The ridge of the columns that stay alone, not of those that go, is the one difference.
  tensor::Matrix<double> among = h.clone();
  for (const std::uint32_t channel : other_channels(kept, kChannels)) {
    among.row(channel)[channel] = problem.hessian.at(channel, channel);
  }
  const auto change = least_change(problem.weights, among, kept);
  for (std::size_t r = 0; r < kRows; ++r) {
    for (std::size_t i = 0; i < kept.size(); ++i) {
      const double expected = problem.weights.row(r)[kept[i]] - change.row(r)[kept[i]];
      EXPECT_NEAR(narrow.row(r)[i], expected, 1e-5);
    }
  }
}

TEST(Narrowing, WhatIsLostIsTheChangeOnTheTextThatJudges) {
  OwnWorkers workers(1);
  const Problem problem(8, workers);
  const PreparedHessian hessian(problem.hessian, problem.held_out);
  const ChannelChooser chooser(problem.weights.view(), hessian, 4, 0.01, workers);
  const tensor::Matrix<double> judge = problem.held_out.dense();
  tensor::Matrix<double> whole(kRows, kChannels);
  std::copy(problem.weights.flat().begin(), problem.weights.flat().end(), whole.flat().begin());
  double last = 0;
  for (const std::size_t width : {12, 10, 7, 4}) {
    const NarrowedChannels narrowed = chooser.choose(width, hessian);
    const std::vector<std::uint32_t>& kept = narrowed.choice.kept;
    ASSERT_EQ(kept.size(), width);
    const auto narrow = compensated(problem.weights.view(), kept, narrowed.shares, workers);
    tensor::Matrix<double> change = whole.clone();
    for (std::size_t r = 0; r < kRows; ++r) {
      for (std::size_t i = 0; i < width; ++i) change.row(r)[kept[i]] -= double{narrow.row(r)[i]};
    }
    EXPECT_NEAR(narrowed.choice.lost, quadratic(change, judge) / quadratic(whole, judge), 1e-5);
    EXPECT_GE(narrowed.choice.lost, last);
    last = narrowed.choice.lost;
    tensor::Matrix<double> alike(kChannels, kChannels);
    for (std::size_t j = 0; j < kChannels; ++j) alike.row(j)[j] = 1;
    EXPECT_NEAR(narrowed.choice.lost_elsewhere, quadratic(change, alike) / quadratic(whole, alike),
                1e-5);
  }
  EXPECT_LT(last, 1);
}

TEST(Narrowing, AllChannelsAreTheExpertItself) {
  OwnWorkers workers(1);
  const Problem problem(9, workers);
  const PreparedHessian hessian(problem.hessian);
  const auto whole =
      ChannelChooser(problem.weights.view(), hessian, 4, 0.01, workers).choose(kChannels, hessian);
  EXPECT_EQ(whole.choice.kept, other_channels({}, kChannels));
  EXPECT_EQ(whole.choice.lost, 0);
  const auto same = compensated(problem.weights.view(), whole.choice.kept, whole.shares, workers);
  EXPECT_TRUE(std::equal(same.flat().begin(), same.flat().end(), problem.weights.flat().begin()));
}

TEST(Narrowing, AnExpertThatNoTextReachesLosesNothingItIsKnownFor) {
  OwnWorkers workers(1);
  const Problem problem(10, workers);
  const PreparedHessian empty{Hessian(kChannels)};
  const auto narrowed =
      ChannelChooser(problem.weights.view(), empty, 4, 0.01, workers).choose(4, empty);
  EXPECT_EQ(narrowed.choice.kept.size(), 4U);
  EXPECT_EQ(narrowed.choice.lost, 0);
}

TEST(Narrowing, ThreadsChangeNoBit) {
  OwnWorkers one(1);
  OwnWorkers three(3);
  const Problem problem(11, one);
  const PreparedHessian hessian(problem.hessian);
  const auto choose = [&](OwnWorkers& workers) {
    return ChannelChooser(problem.weights.view(), hessian, 4, 0.01, workers).choose(5, hessian);
  };
  EXPECT_EQ(choose(one).choice.kept, choose(three).choice.kept);
  EXPECT_EQ(choose(one).choice.lost, choose(three).choice.lost);
}

TEST(Narrowing, WhatIsLeftCarriesItsColumnsAsTheyAreCompensated) {
  OwnWorkers workers(1);
  const Problem problem(9, workers);
  const std::vector<std::uint32_t> kept = {1, 2, 5, 8, 9, 10};
  const auto shares = compensation(problem.hessian, kept, 0.01);
  const auto squares = [](const tensor::Matrix<float>& matrix) {
    double sum = 0;
    for (const float value : matrix.flat()) sum += double{value} * double{value};
    return sum;
  };
  const double wanted = squares(compensated(problem.weights.view(), kept, shares, workers)) /
                        squares(problem.weights);
  EXPECT_NEAR(carried_share(problem.gram, kept, shares), wanted, 1e-5 * wanted);
  const auto all = other_channels({}, kChannels);
  EXPECT_NEAR(carried_share(problem.gram, all, compensation(problem.hessian, all, 0.01)), 1, 1e-6);
}

/// Two channels that are the same, and one that nothing reads but another expert's tokens.
TEST(Narrowing, OtherExpertsTokensChooseNothing) {
  OwnWorkers workers(1);
  const auto sums = [&](std::vector<float> row) {
    Hessian hessian(row.size());
    const tensor::MatrixView<const float> x{row.data(), 1, row.size(), row.size()};
    for (int t = 0; t < 100; ++t) hessian.add(x, {}, workers);
    return hessian;
  };
  const Hessian own = sums({1, 1, 0, 0});
  const Hessian judge = sums({2, 2, 0, 0});
  const Hessian layer = sums({0, 5, 5, 5});
  PreparedHessian hessian(shrunk_towards(own, layer, 1000), shrunk_towards(judge, layer, 1000));
  EXPECT_EQ(of_own_tokens(hessian, 50).judge().at(2, 2), hessian.judge().at(2, 2));
  hessian.set_own({&own, &judge});
  const PreparedHessian alone = of_own_tokens(hessian, 50);
  EXPECT_EQ(alone.judge().at(0, 1), judge.at(0, 1));
  EXPECT_EQ(alone.judge().at(2, 2), 0);
  EXPECT_EQ(alone.calibration().at(2, 3), 0);
  EXPECT_DOUBLE_EQ(alone.calibration().at(0, 1) / alone.calibration().at(0, 0), 100.0 / 150.0);
  hessian.set_own({&own, nullptr});
  EXPECT_EQ(of_own_tokens(hessian, 50).judge().at(0, 0), own.at(0, 0));
}

TEST(Narrowing, WidthsAreWholeBlocks) {
  EXPECT_THAT(narrower_widths(128), ElementsAre(96, 64));
  EXPECT_THAT(narrower_widths(768), ElementsAre(576, 512, 384, 256));
  EXPECT_THAT(narrower_widths(1024), ElementsAre(768, 512));
  EXPECT_THAT(narrower_widths(1408), ElementsAre(1056, 1024, 704, 512));
  EXPECT_THAT(narrower_widths(96), ElementsAre(64, 32));
  EXPECT_THAT(narrower_widths(100), IsEmpty());
  EXPECT_THAT(narrower_widths(64), ElementsAre(32));
  EXPECT_THAT(narrower_widths(32), IsEmpty());
  EXPECT_THAT(narrower_widths(0), IsEmpty());
}

}  // namespace
}  // namespace winnow::compress::narrowing_test

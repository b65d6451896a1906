// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/layer_swaps.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/rng.h"

namespace winnow::compress::layer_swaps_test {
namespace {

using Kind = LossGram::Kind;
using Loss = LossGram::Loss;
using ::testing::IsEmpty;

/// Losses of random vectors of two kinds, and random damages of types.
class RandomLayer {
 public:
  RandomLayer(std::uint32_t experts, std::uint64_t seed) : gram(experts), rng_(seed) {
    std::vector<std::pair<Loss, std::vector<double>>> vectors;
    for (const Kind kind : {Kind::kZero, Kind::kConstant}) {
      for (std::uint32_t e = 0; e < experts; ++e) {
        std::vector<double> values;
        for (int j = 0; j < 3; ++j) values.push_back(uniform());
        vectors.push_back({{ExpertId{e}, kind}, std::move(values)});
      }
    }
    for (const auto& [a, of_a] : vectors) {
      for (const auto& [b, of_b] : vectors) {
        double product = 0;
        for (std::size_t j = 0; j < of_a.size(); ++j) product += of_a[j] * of_b[j];
        gram.add(a, b, product);
      }
    }
    for (std::uint32_t e = 0; e < experts * experts; ++e)
      types.push_back(0.1 * std::fabs(uniform()));
    problem.gram = &gram;
    problem.gone.resize(experts);
    problem.kl_per_change = 0.5;
    problem.may_go = [](ExpertId, Kind) { return true; };
    problem.types_damage = [this, experts](ExpertId e, ExpertId as) {
      return types[index(e) * experts + index(as)];
    };
  }

  double uniform() { return static_cast<double>(rng_.below(2001)) / 1000.0 - 1.0; }

  /// Of the layer with these gone, experts that are there in the types of their `as`.
  double damage(const std::vector<std::optional<Kind>>& gone,
                const std::vector<ExpertId>& as) const {
    std::vector<Loss> set;
    double sum = 0;
    for (std::uint32_t e = 0; e < gone.size(); ++e) {
      if (gone[e]) {
        set.push_back({ExpertId{e}, *gone[e]});
      } else {
        sum += problem.types_damage(ExpertId{e}, as[e]);
      }
    }
    return sum + problem.kl_per_change * gram.squared_change(set);
  }

  LossGram gram;
  std::vector<double> types;
  SwapProblem problem;

 private:
  Rng rng_;
};

TEST(LayerSwaps, EndWhereNoSwapIsBetterAndNeverAboveTheStart) {
  std::size_t made = 0;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    RandomLayer layer(8, seed);
    layer.problem.gone[1] = layer.problem.gone[4] = Kind::kZero;
    layer.problem.gone[6] = Kind::kConstant;
    std::vector<ExpertId> as;
    for (std::uint32_t e = 0; e < 8; ++e) as.push_back(ExpertId{e});
    auto gone = layer.problem.gone;
    double last = layer.damage(gone, as);
    for (const Swap& swap : improving_swaps(layer.problem)) {
      ASSERT_TRUE(gone[index(swap.back)].has_value());
      ASSERT_FALSE(gone[index(swap.gone)].has_value());
      std::swap(gone[index(swap.back)], gone[index(swap.gone)]);
      as[index(swap.back)] = as[index(swap.gone)];
      ++made;
      const double damage = layer.damage(gone, as);
      EXPECT_LT(damage, last);
      last = damage;
    }
    for (std::uint32_t a = 0; a < 8; ++a) {
      for (std::uint32_t b = 0; b < 8; ++b) {
        if (!gone[a] || gone[b]) continue;
        auto other = gone;
        std::swap(other[a], other[b]);
        auto types = as;
        types[a] = types[b];
        EXPECT_GE(layer.damage(other, types), last * (1 - 1e-6)) << seed << ": " << a << ", " << b;
      }
    }
  }
  EXPECT_GT(made, 40U);
}

TEST(LayerSwaps, OneExpertThatIsGoneIsTheBestOne) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    RandomLayer layer(8, seed);
    for (double& damage : layer.types) damage = 0.05;
    layer.problem.gone[3] = Kind::kZero;
    auto gone = layer.problem.gone;
    for (const Swap& swap : improving_swaps(layer.problem)) {
      std::swap(gone[index(swap.back)], gone[index(swap.gone)]);
    }
    double best = INFINITY;
    for (std::uint32_t e = 0; e < 8; ++e) {
      best = std::min(best, layer.gram.at({ExpertId{e}, Kind::kZero}, {ExpertId{e}, Kind::kZero}));
    }
    for (std::uint32_t e = 0; e < 8; ++e) {
      if (!gone[e]) continue;
      EXPECT_DOUBLE_EQ(layer.gram.at({ExpertId{e}, Kind::kZero}, {ExpertId{e}, Kind::kZero}), best);
    }
  }
}

TEST(LayerSwaps, TypesThatFitTheOtherExpertCount) {
  RandomLayer layer(2, 1);
  layer.problem.gone[0] = Kind::kZero;
  layer.problem.kl_per_change = 0;
  layer.types = {9, 1, 9, 2};  // expert 0 in the types of 1 costs 1, expert 1 in its own 2
  const auto swaps = improving_swaps(layer.problem);
  ASSERT_EQ(swaps.size(), 1U);
  EXPECT_EQ(swaps[0].back, ExpertId{0});
  EXPECT_EQ(swaps[0].gone, ExpertId{1});
  layer.types = {9, 3, 9, 2};
  EXPECT_THAT(improving_swaps(layer.problem), IsEmpty());
}

TEST(LayerSwaps, WhoMayNotGoStays) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    RandomLayer layer(8, seed);
    layer.problem.gone[2] = Kind::kZero;
    layer.problem.may_go = [](ExpertId e, Kind kind) {
      return index(e) >= 6 && kind == Kind::kZero;
    };
    for (const Swap& swap : improving_swaps(layer.problem)) EXPECT_GE(index(swap.gone), 6U);
    layer.problem.may_go = [](ExpertId, Kind) { return false; };
    EXPECT_THAT(improving_swaps(layer.problem), IsEmpty());
  }
}

}  // namespace
}  // namespace winnow::compress::layer_swaps_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/mix_search.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/knapsack.h"

namespace winnow::compress::mix_search_test {
namespace {

/// Twelve groups of three options; what is predicted is wrong by a factor per group, and pairs of
/// neighbours add to each other's damage.
class Problem {
 public:
  Mix solve(std::span<const double> factors) const {
    std::vector<std::vector<Choice>> items;
    for (std::size_t g = 0; g < kGroups; ++g) {
      items.emplace_back();
      for (std::size_t o = 0; o < 3; ++o) {
        items.back().push_back({bytes(g, o), factors[g] * damage(o)});
      }
    }
    return solve_knapsack(items, kBudget).value();
  }
  double truth(const Mix& mix) const {
    double total = 0;
    for (std::size_t g = 0; g < kGroups; ++g) {
      total += std::pow(3.0, std::sin(static_cast<double>(g))) * damage(mix[g]);
      if (g > 0) total += 0.3 * std::sqrt(damage(mix[g]) * damage(mix[g - 1]));
    }
    return total;
  }
  std::vector<double> measure(std::span<const Mix> mixes) {
    std::vector<double> values;
    for (const Mix& mix : mixes) {
      values.push_back(truth(mix));
      EXPECT_LE(size(mix), kBudget);
      EXPECT_TRUE(seen_.insert(mix).second) << "measured twice";
    }
    return values;
  }
  MixSearchResult search(const MixSearchOptions& options) {
    seen_.clear();
    Log log;
    return search_mix(
        kGroups, [this](std::span<const double> f) { return solve(f); },
        [this](std::span<const Mix> mixes) { return measure(mixes); }, options, log);
  }
  static constexpr std::size_t kGroups = 12;

 private:
  static constexpr std::uint64_t kBudget = 2600;
  static std::uint64_t bytes(std::size_t group, std::size_t option) {
    return (100 + 7 * group) * (option + 1);
  }
  static double damage(std::size_t option) { return std::pow(0.25, static_cast<double>(option)); }
  static std::uint64_t size(const Mix& mix) {
    std::uint64_t total = 0;
    for (std::size_t g = 0; g < kGroups; ++g) total += bytes(g, mix[g]);
    return total;
  }
  std::set<Mix> seen_;
};

TEST(MixSearch, FindsMixesThatAreTrulyBetterThanThePredictedOne) {
  Problem problem;
  const MixSearchResult result = problem.search({.rounds = 6});
  EXPECT_EQ(result.first, problem.truth(problem.solve(std::vector<double>(Problem::kGroups, 1.0))));
  EXPECT_EQ(result.best, problem.truth(result.mix));
  EXPECT_LT(result.best, 0.9 * result.first);
  EXPECT_LE(result.measured, 6 * 8 + 1);
}

TEST(MixSearch, NeverEndsWorseAndMoreRoundsNeverHurt) {
  Problem problem;
  double last = INFINITY;
  for (const int rounds : {1, 2, 4, 8}) {
    const MixSearchResult result = problem.search({.rounds = rounds});
    EXPECT_LE(result.best, result.first);
    EXPECT_LE(result.best, last);
    last = result.best;
  }
}

TEST(MixSearch, DependsOnNothingButTheSeed) {
  Problem problem;
  EXPECT_EQ(problem.search({.seed = 5}).mix, problem.search({.seed = 5}).mix);
}

TEST(MixSearch, EndsWhereThereIsNoOtherMix) {
  Log log;
  int calls = 0;
  const MixSearchResult result = search_mix(
      2,
      [](std::span<const double>) {
        return Mix{0, 0};
      },
      [&](std::span<const Mix> mixes) {
        ++calls;
        return std::vector<double>(mixes.size(), 1.0);
      },
      {}, log);
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(result.mix, (Mix{0, 0}));
}

}  // namespace
}  // namespace winnow::compress::mix_search_test

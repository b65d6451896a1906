// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/knapsack.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/rng.h"

namespace winnow::compress::knapsack_test {
namespace {

struct Total {
  std::uint64_t bytes = 0;
  double damage = 0;
};

Total total(const std::vector<std::vector<Choice>>& items, const std::vector<std::size_t>& picks) {
  Total sum;
  for (std::size_t i = 0; i < items.size(); ++i) {
    sum.bytes += items[i][picks[i]].bytes;
    sum.damage += items[i][picks[i]].damage;
  }
  return sum;
}

/// Tries every combination.
std::optional<double> brute_force(const std::vector<std::vector<Choice>>& items,
                                  std::uint64_t budget) {
  std::vector<std::size_t> picks(items.size());
  std::optional<double> best;
  for (;;) {
    const Total sum = total(items, picks);
    if (sum.bytes <= budget && (!best || sum.damage < *best)) best = sum.damage;
    std::size_t i = 0;
    while (i < items.size() && ++picks[i] == items[i].size()) picks[i++] = 0;
    if (i == items.size()) return best;
  }
}

std::vector<std::vector<Choice>> random_items(Rng& rng) {
  std::vector<std::vector<Choice>> items(1 + rng.below(5));
  for (auto& choices : items) {
    choices.resize(1 + rng.below(4));
    // Damages are small integers, so that sums are exact in any order.
    for (Choice& choice : choices) choice = {rng.below(40), static_cast<double>(rng.below(100))};
  }
  return items;
}

TEST(Knapsack, EqualsBruteForceOnSmallRandomCases) {
  Rng rng(1);
  int feasible = 0;
  for (int round = 0; round < 2000; ++round) {
    const auto items = random_items(rng);
    const std::uint64_t budget = rng.below(120);
    const auto expected = brute_force(items, budget);
    const auto picks = solve_knapsack(items, budget);
    ASSERT_EQ(picks.has_value(), expected.has_value()) << round;
    if (!picks) continue;
    ++feasible;
    EXPECT_LE(total(items, *picks).bytes, budget);
    EXPECT_EQ(total(items, *picks).damage, *expected) << round;
  }
  EXPECT_GT(feasible, 1000);
}

TEST(Knapsack, DamageNeverRisesWithTheBudget) {
  Rng rng(2);
  const std::vector<std::vector<Choice>> items = [&] {
    std::vector<std::vector<Choice>> made(30);
    for (auto& choices : made) {
      for (int c = 0; c < 6; ++c) choices.push_back({64 * (1 + rng.below(100)), rng.uniform()});
    }
    return made;
  }();
  double last = INFINITY;
  for (std::uint64_t budget = 20000; budget < 200000; budget += 5000) {
    const auto picks = solve_knapsack(items, budget);
    if (!picks) continue;
    const Total sum = total(items, *picks);
    EXPECT_LE(sum.bytes, budget);
    EXPECT_LE(sum.damage, last + 1e-12);
    last = sum.damage;
  }
  EXPECT_LT(last, INFINITY);
}

TEST(Knapsack, ScalingAllDamagesChangesNothing) {
  Rng rng(3);
  for (int round = 0; round < 50; ++round) {
    auto items = random_items(rng);
    const auto before = solve_knapsack(items, 60);
    for (auto& choices : items) {
      for (Choice& choice : choices) choice.damage *= 4;
    }
    EXPECT_EQ(solve_knapsack(items, 60), before);
  }
}

TEST(Knapsack, StaysWithinTheBudgetWhenStatesAreLimited) {
  Rng rng(4);
  for (int round = 0; round < 50; ++round) {
    const auto items = random_items(rng);
    const auto picks = solve_knapsack(items, 100, 8);
    if (picks) {
      EXPECT_LE(total(items, *picks).bytes, 100U);
    }
  }
}

TEST(Knapsack, SaysWhenTheSmallestChoicesDoNotFit) {
  const std::vector<std::vector<Choice>> items = {{{10, 1}, {20, 0}}, {{15, 1}}};
  EXPECT_FALSE(solve_knapsack(items, 24).has_value());
  EXPECT_TRUE(solve_knapsack(items, 25).has_value());
}

TEST(Knapsack, TheLeastBudgetSucceedsHoweverLargeAndOddTheBytesAre) {
  Rng rng(5);
  for (int round = 0; round < 20; ++round) {
    std::vector<std::vector<Choice>> items(200);
    std::uint64_t least = 0;
    for (auto& choices : items) {
      std::uint64_t smallest = UINT64_MAX;
      for (int c = 0; c < 8; ++c) {
        choices.push_back({1 + rng.below(std::uint64_t{1} << 36), rng.uniform()});
        smallest = std::min(smallest, choices.back().bytes);
      }
      least += smallest;
    }
    EXPECT_TRUE(solve_knapsack(items, least, 64).has_value());
    EXPECT_FALSE(solve_knapsack(items, least - 1, 64).has_value());
  }
}

/// Items as a large model has them: bytes per weight fall while damage rises four-fold a bit.
std::vector<std::vector<Choice>> large_model(std::size_t groups) {
  Rng rng(6);
  std::vector<std::vector<Choice>> items(groups);
  for (auto& choices : items) {
    const double sensitivity = std::exp(2 * rng.normal());
    const std::uint64_t weights = (1 + rng.below(200)) * 1048576;
    for (const double bits : {2.625, 3.4375, 4.25, 4.5, 5.5, 6.5625, 8.5, 16.0}) {
      choices.push_back({static_cast<std::uint64_t>(static_cast<double>(weights) * bits / 8),
                         sensitivity * std::exp2(-2 * bits) * (0.8 + 0.4 * rng.uniform())});
    }
  }
  return items;
}

std::uint64_t budget_at(const std::vector<std::vector<Choice>>& items, std::size_t choice) {
  std::uint64_t budget = 12345;
  for (const auto& choices : items) budget += choices[choice].bytes;
  return budget;
}

TEST(Knapsack, OfAFewStatesIsNearTheOptimumOnALargeModel) {
  const auto items = large_model(340);
  const std::uint64_t budget = budget_at(items, 2);
  const auto exact = solve_knapsack(items, budget);
  const auto limited = solve_knapsack(items, budget, 64);
  ASSERT_TRUE(exact && limited);
  EXPECT_LE(total(items, *limited).bytes, budget);
  EXPECT_GE(total(items, *limited).damage, total(items, *exact).damage * (1 - 1e-12));
  EXPECT_LE(total(items, *limited).damage, total(items, *exact).damage * 1.001);
}

TEST(Knapsack, ABudgetForEverythingTakesTheLeastDamageInTheFewestBytes) {
  const std::vector<std::vector<Choice>> items = {{{10, 1}, {30, 0}, {20, 0}}, {{5, 2}, {5, 2}}};
  EXPECT_EQ(solve_knapsack(items, UINT64_MAX), (std::vector<std::size_t>{2, 0}));
}

TEST(Knapsack, RefusesDamagesThatAreNoNumbersAndItemsWithoutAChoice) {
  using Items = std::vector<std::vector<Choice>>;
  EXPECT_THROW(solve_knapsack(Items{{{1, NAN}}}, 10), Error);
  EXPECT_THROW(solve_knapsack(Items{{{1, -1.0}}}, 10), Error);
  EXPECT_THROW(solve_knapsack(Items{{}}, 10), Error);
}

}  // namespace
}  // namespace winnow::compress::knapsack_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Types and replacements of experts in one knapsack, against trying everything.
#include "compress/expert_items.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "base/rng.h"

namespace winnow::compress::expert_items_test {
namespace {

const ExpertReplacement kStays{"stays", "", engine::ExpertSubstitute::Kind::kZero,
                               model::ExpertKind::kZero, nullptr};
const ExpertReplacement kNarrows{"narrows", "", engine::ExpertSubstitute::Kind::kOwn,
                                 model::ExpertKind::kFeedForward, nullptr};
const ExpertReplacement kGoes{"goes", "", engine::ExpertSubstitute::Kind::kDropped, std::nullopt,
                              nullptr};

/// Experts of one layer with `matrices` groups each, and some groups of no expert.
struct Case {
  MixProblem problem;
  DamageTable damages;
  std::vector<ExpertItem> items;
};

Case random_case(Rng& rng, std::size_t experts, std::size_t matrices, std::size_t others) {
  Case made;
  const bool narrows = experts * matrices < 5;  // trying everything takes its time
  const auto add_group = [&] {
    const std::size_t options = 1 + rng.below(3);
    made.problem.bytes.emplace_back();
    made.damages.emplace_back();
    for (std::size_t o = 0; o < options; ++o) {
      made.problem.bytes.back().push_back(1 + rng.below(20));
      // Small integers, so that sums are exact in any order.
      made.damages.back().push_back(static_cast<double>(rng.below(50)));
    }
    return made.problem.bytes.size() - 1;
  };
  for (std::size_t i = 0; i < others; ++i) add_group();
  for (std::uint32_t e = 0; e < experts; ++e) {
    ExpertItem item{LayerId{0}, ExpertId{e}, {}, {}, 2};
    for (std::size_t m = 0; m < matrices; ++m) item.groups.push_back(add_group());
    if (rng.below(4) != 0) {
      item.replacements.push_back({&kStays, rng.below(4), 0, static_cast<double>(rng.below(150))});
    }
    if (rng.below(2) != 0) {
      item.replacements.push_back({&kGoes, 0, 0, static_cast<double>(rng.below(200))});
    }
    if (narrows && rng.below(2) != 0) {
      item.replacements.push_back(
          {&kNarrows, 0, 0, static_cast<double>(rng.below(40)), {}, 32, {}});
      for (std::size_t m = 0; m < matrices; ++m) {
        item.replacements.back().groups.push_back(add_group());
      }
    }
    made.items.push_back(std::move(item));
  }
  return made;
}

/// Whether each group's matrix is there.
std::vector<bool> used_groups(const Case& made, const ExpertMix& mix) {
  std::vector<bool> used(made.damages.size(), true);
  for (std::size_t i = 0; i < made.items.size(); ++i) {
    const ExpertItem& item = made.items[i];
    for (const std::size_t g : item.groups) used[g] = !mix.replaced[i];
    for (std::size_t r = 0; r < item.replacements.size(); ++r) {
      for (const std::size_t g : item.replacements[r].groups) used[g] = mix.replaced[i] == r;
    }
  }
  return used;
}

double damage_of(const Case& made, const ExpertMix& mix) {
  double total = 0;
  for (std::size_t i = 0; i < made.items.size(); ++i) {
    if (mix.replaced[i]) total += made.items[i].replacements[*mix.replaced[i]].predicted_kl;
  }
  const std::vector<bool> used = used_groups(made, mix);
  for (std::size_t g = 0; g < made.damages.size(); ++g) {
    if (used[g]) total += made.damages[g][mix.mix[g]];
  }
  return total;
}

/// Least damage over every mix and set of replacements.
std::optional<double> brute_force(const Case& made) {
  std::optional<double> best;
  ExpertMix mix{Mix(made.damages.size()),
                std::vector<std::optional<std::size_t>>(made.items.size())};
  std::vector<bool> used;
  const std::function<void(std::size_t)> types = [&](std::size_t g) {
    if (g < made.damages.size() && !used[g]) return types(g + 1);
    if (g < made.damages.size()) {
      for (mix.mix[g] = 0; mix.mix[g] < made.damages[g].size(); ++mix.mix[g]) types(g + 1);
      mix.mix[g] = 0;
      return;
    }
    if (size_of(made.problem, made.items, mix) > made.problem.room) return;
    const double damage = damage_of(made, mix);
    if (!best || damage < *best) best = damage;
  };
  const std::function<void(std::size_t)> forms = [&](std::size_t i) {
    if (i == made.items.size()) {
      used = used_groups(made, mix);
      return types(0);
    }
    mix.replaced[i] = std::nullopt;
    forms(i + 1);
    for (std::size_t r = 0; r < made.items[i].replacements.size(); ++r) {
      mix.replaced[i] = r;
      forms(i + 1);
    }
    mix.replaced[i] = std::nullopt;
  };
  forms(0);
  return best;
}

TEST(ExpertItems, TypesAndReplacementsTogetherAreTheBestThereIs) {
  Rng rng(1);
  int feasible = 0;
  int replaced = 0;
  int narrowed = 0;
  for (int round = 0; round < 300; ++round) {
    Case made = random_case(rng, 1 + rng.below(3), 1 + rng.below(2), rng.below(2));
    made.problem.room = rng.below(90);
    const auto expected = brute_force(made);
    const auto mix = solve_experts(made.problem, made.damages, made.items);
    ASSERT_EQ(mix.has_value(), expected.has_value()) << round;
    if (!mix) {
      EXPECT_GT(least_bytes(made.problem, made.items), made.problem.room) << round;
      continue;
    }
    ++feasible;
    EXPECT_LE(size_of(made.problem, made.items, *mix), made.problem.room) << round;
    EXPECT_LE(least_bytes(made.problem, made.items), made.problem.room) << round;
    EXPECT_EQ(damage_of(made, *mix), *expected) << round;
    for (std::size_t i = 0; i < mix->replaced.size(); ++i) {
      if (!mix->replaced[i]) continue;
      ++(made.items[i].replacements[*mix->replaced[i]].width != 0 ? narrowed : replaced);
    }
  }
  EXPECT_GT(feasible, 150);
  EXPECT_GT(replaced, 50);
  EXPECT_GT(narrowed, 20);
}

/// A layer of eight experts that may be kept in two types or dropped.
TEST(ExpertItems, BitsAndDropsOfEightExpertsEqualBruteForceAtEveryBudget) {
  Rng rng(2);
  Case made;
  for (std::uint32_t e = 0; e < 8; ++e) {
    const double damage = rng.uniform();
    made.problem.bytes.push_back({10, 20});
    made.damages.push_back({damage, 0.1 * damage});
    made.items.push_back({LayerId{0}, ExpertId{e}, {e}, {{&kGoes, 0, 0, 3 * rng.uniform()}}, 1});
  }
  double last = INFINITY;
  for (made.problem.room = 0; made.problem.room <= 8 * 21; made.problem.room += 7) {
    const auto mix = solve_experts(made.problem, made.damages, made.items);
    ASSERT_TRUE(mix.has_value());
    EXPECT_NEAR(damage_of(made, *mix), *brute_force(made), 1e-12) << made.problem.room;
    EXPECT_LE(damage_of(made, *mix), last + 1e-12);
    last = damage_of(made, *mix);
  }
  EXPECT_GT(last, 0);
}

TEST(ExpertItems, DamagesTimesAConstantChangeNothing) {
  Rng rng(3);
  for (int round = 0; round < 50; ++round) {
    Case made = random_case(rng, 3, 2, 1);
    made.problem.room = 60;
    const auto mix = solve_experts(made.problem, made.damages, made.items);
    for (auto& group : made.damages) {
      for (double& damage : group) damage *= 1024;
    }
    for (ExpertItem& item : made.items) {
      for (ReplacementOption& option : item.replacements) option.predicted_kl *= 1024;
    }
    EXPECT_EQ(solve_experts(made.problem, made.damages, made.items), mix) << round;
  }
}

TEST(ExpertItems, ManyCombinationsAreThoseThatSomePriceMakesTheBest) {
  Rng rng(4);
  MixProblem problem;
  DamageTable damages;
  for (int g = 0; g < 3; ++g) {
    problem.bytes.emplace_back();
    damages.emplace_back();
    for (int o = 0; o < 12; ++o) {
      problem.bytes.back().push_back(100 + rng.below(1000));
      damages.back().push_back(rng.uniform());
    }
  }
  const std::vector<std::size_t> groups = {0, 1, 2};
  const auto best = best_combinations(problem, damages, groups);
  EXPECT_LE(best.size(), 64U);
  for (double price = 1e-6; price < 1e-1; price *= 1.3) {
    double separate = 0;
    for (const std::size_t g : groups) {
      double least = INFINITY;
      for (std::size_t o = 0; o < 12; ++o) {
        least = std::min(least, damages[g][o] + price * static_cast<double>(problem.bytes[g][o]));
      }
      separate += least;
    }
    double together = INFINITY;
    for (const Choice& choice : best) {
      together = std::min(together, choice.damage + price * static_cast<double>(choice.bytes));
    }
    EXPECT_NEAR(together, separate, 1e-9 * separate) << price;
  }
}

}  // namespace
}  // namespace winnow::compress::expert_items_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Accepting, refusing and using proxies, on problems whose truth is known.
#include "compress/ranked_proxies.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/rng.h"
#include "compress/testing.h"

namespace winnow::compress::ranked_proxies_test {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::size_t kGroups = 12;
constexpr std::size_t kOptions = 6;

/// Twelve groups of six options. `true_damages` is what measuring gives; the slopes are wrong by a
/// factor for each group.
struct Problem {
  Problem() {
    Rng rng(11);
    for (std::size_t g = 0; g < kGroups; ++g) {
      const double size = 1 + 3 * rng.uniform();
      const double damage = std::exp(1.5 * rng.normal());
      const double wrong = std::exp(wrongness * rng.normal());
      problem.bytes.emplace_back();
      true_damages.emplace_back();
      slopes.emplace_back();
      noise.emplace_back();
      for (std::size_t o = 0; o < kOptions; ++o) {
        const double option = static_cast<double>(o);
        problem.bytes[g].push_back(static_cast<std::uint64_t>(100 * size * (option + 2)));
        true_damages[g].push_back(damage * std::pow(0.3, option));
        slopes[g].push_back(wrong * true_damages[g].back());
        noise[g].push_back(rng.uniform());
      }
      problem.room += problem.bytes[g][2];
    }
  }
  std::vector<double> measure(std::span<const Mix> mixes) {
    std::vector<double> divergences;
    for (const Mix& mix : mixes) {
      EXPECT_LE(problem.size_of(mix), problem.room);
      divergences.push_back(damage_of(true_damages, mix));
    }
    measured += mixes.size();
    return divergences;
  }
  RankedChoice choose(const std::vector<Proxy>& proxies, const RankingOptions& options = {}) {
    return choose_by_proxy(
        problem, proxies, [this](std::span<const Mix> mixes) { return measure(mixes); }, options,
        log);
  }

  static constexpr double wrongness = 1.5;
  MixProblem problem;
  DamageTable true_damages, slopes, noise;
  testing::TestLog log;
  std::size_t measured = 0;
};

TEST(RankedProxies, TheTrueOneIsAcceptedAndItsOptimumTaken) {
  Problem p;
  const RankedChoice choice =
      p.choose({{"slopes", p.slopes}, {"noise", p.noise}, {"truth", p.true_damages}});
  ASSERT_TRUE(choice.ranking.accepted);
  EXPECT_EQ(choice.ranking.scores[choice.ranking.best].name, "truth");
  EXPECT_EQ(choice.ranking.scores[choice.ranking.best].choosing, 1.0);
  EXPECT_EQ(choice.ranking.scores[choice.ranking.best].judging, 1.0);
  EXPECT_EQ(choice.mix, p.problem.solve(p.true_damages));
  EXPECT_LT(choice.best_kl, choice.first_kl);
  EXPECT_EQ(choice.best_kl, *choice.proxy_kl);
  EXPECT_EQ(choice.divergences.size(), 24U);
  EXPECT_EQ(p.measured, 25U);
  EXPECT_THAT(p.log.warnings, IsEmpty());
}

TEST(RankedProxies, WhereNoneAgreesTheSlopesDecideAndTheLogSaysSo) {
  Problem p;
  DamageTable other = p.noise;
  for (auto& row : other) std::reverse(row.begin(), row.end());
  const RankedChoice choice = p.choose({{"slopes", p.noise}, {"other", other}});
  EXPECT_FALSE(choice.ranking.accepted);
  EXPECT_EQ(choice.mix, p.problem.solve(p.noise));
  EXPECT_EQ(choice.best_kl, choice.first_kl);
  EXPECT_FALSE(choice.proxy_kl.has_value());
  ASSERT_EQ(p.log.warnings.size(), 1U);
  EXPECT_THAT(p.log.warnings[0], HasSubstr("slopes decide"));
  const Json json = to_json(choice, {});
  EXPECT_EQ(json["accepted"], false);
  EXPECT_EQ(json["taken"], "slopes");
  EXPECT_FALSE(json.contains("proxy_kl"));
}

TEST(RankedProxies, OnlyTheOtherHalfAccepts) {
  // A proxy that orders one half as measured and the other the wrong way round.
  const std::size_t count = 24;
  const MixProblem problem{{std::vector<std::uint64_t>(count, 1)}, 1};
  std::vector<Mix> mixes;
  std::vector<double> divergences;
  for (std::size_t i = 0; i < count; ++i) {
    mixes.push_back({i});
    divergences.push_back(static_cast<double>(i));
  }
  Proxy learnt{"learnt", {divergences}};
  const RankingOptions options;
  const Ranking right = rank_proxies(std::span(&learnt, 1), mixes, divergences, options);
  ASSERT_TRUE(right.accepted);
  // Which mixes chose: those whose values do not matter to the tau of the judging half.
  std::vector<bool> judges(count);
  for (std::size_t i = 0; i < count; ++i) {
    Proxy changed = learnt;
    changed.damages[0][i] = i < count / 2 ? 1e9 : -1.0;
    const Ranking ranking = rank_proxies(std::span(&changed, 1), mixes, divergences, options);
    judges[i] = ranking.scores[0].judging < 1;
    EXPECT_EQ(ranking.scores[0].choosing < 1, !judges[i]) << "every mix is in one half";
  }
  EXPECT_EQ(std::count(judges.begin(), judges.end(), true), 12);
  for (std::size_t i = 0; i < count; ++i) {
    if (judges[i]) learnt.damages[0][i] = 100 - learnt.damages[0][i];
  }
  const Ranking wrong = rank_proxies(std::span(&learnt, 1), mixes, divergences, options);
  EXPECT_EQ(wrong.scores[0].choosing, 1.0);
  EXPECT_EQ(wrong.scores[0].judging, -1.0);
  EXPECT_FALSE(wrong.accepted);
}

TEST(RankedProxies, TheLimitOfAgreementIsKept) {
  Problem p;
  const std::vector<Proxy> proxies = {{"slopes", p.slopes}};
  const RankedChoice free = p.choose(proxies, {.least_tau = -1});
  const double tau = free.ranking.scores[0].judging;
  EXPECT_TRUE(free.ranking.accepted);
  EXPECT_LT(tau, 1);
  EXPECT_TRUE(p.choose(proxies, {.least_tau = tau}).ranking.accepted);
  EXPECT_FALSE(p.choose(proxies, {.least_tau = tau + 1e-9}).ranking.accepted);
}

TEST(RankedProxies, AnAcceptedProxyWhoseOptimumIsWorseIsNotTaken) {
  Problem p;
  const Mix trap = p.problem.solve(p.true_damages);
  const auto measure = [&](std::span<const Mix> mixes) {
    std::vector<double> divergences = p.measure(mixes);
    for (std::size_t m = 0; m < mixes.size(); ++m) {
      if (mixes[m] == trap) divergences[m] = 1e6;
    }
    return divergences;
  };
  const RankedChoice choice =
      choose_by_proxy(p.problem, {{"slopes", p.slopes}, {"truth", p.true_damages}}, measure,
                      {.least_tau = 0.5}, p.log);
  ASSERT_TRUE(choice.ranking.accepted);
  EXPECT_EQ(*choice.proxy_kl, 1e6);
  EXPECT_EQ(choice.mix, p.problem.solve(p.slopes));
  EXPECT_EQ(choice.best_kl, choice.first_kl);
  EXPECT_EQ(to_json(choice, {})["taken"], "slopes");
}

TEST(RankedProxies, TooFewMixesAcceptNothing) {
  Problem p;
  const std::vector<Proxy> proxies = {{"slopes", p.slopes}, {"truth", p.true_damages}};
  EXPECT_FALSE(p.choose(proxies, {.mixes = 7, .least_tau = -1}).ranking.accepted);
  EXPECT_TRUE(p.choose(proxies, {.mixes = 8, .least_tau = -1}).ranking.accepted);
  // A budget for one mix alone.
  p.problem.room = 0;
  for (const auto& bytes : p.problem.bytes) p.problem.room += bytes[0];
  const RankedChoice choice = p.choose(proxies);
  EXPECT_FALSE(choice.ranking.accepted);
  EXPECT_EQ(choice.divergences.size(), 1U);
  EXPECT_EQ(choice.mix, Mix(kGroups, 0));
}

TEST(RankedProxies, ScatteredMixesDifferFitAndStayNearTheCentre) {
  Problem p;
  const std::vector<Proxy> proxies = {{"slopes", p.slopes}, {"noise", p.noise}};
  const Mix centre = p.problem.solve(p.slopes);
  const auto mixes = scattered_mixes(p.problem, proxies, centre, {});
  EXPECT_EQ(mixes[0], centre);
  EXPECT_EQ(std::set<Mix>(mixes.begin(), mixes.end()).size(), mixes.size());
  EXPECT_EQ(mixes.size(), 24U);
  for (const Mix& mix : mixes) {
    EXPECT_LE(p.problem.size_of(mix), p.problem.room);
    // Damages fall with bytes, so that options are steps of the frontier.
    for (std::size_t g = 0; g < kGroups; ++g) {
      EXPECT_LE(std::max(mix[g], centre[g]) - std::min(mix[g], centre[g]), 2U);
    }
  }
  EXPECT_EQ(scattered_mixes(p.problem, proxies, centre, {}), mixes);
  EXPECT_NE(scattered_mixes(p.problem, proxies, centre, {.seed = 2}), mixes);
}

TEST(RankedProxies, ProductsAreGeometricMeansOfEveryTwo) {
  const auto all =
      with_products({{"a", {{4, 9}, {0}}}, {"b", {{1, 4}, {5}}}, {"c", {{9, 1}, {5}}}});
  ASSERT_EQ(all.size(), 6U);
  EXPECT_EQ(all[3].name, "a*b");
  EXPECT_EQ(all[3].damages, (DamageTable{{2, 6}, {0}}));
  EXPECT_EQ(all[4].name, "a*c");
  EXPECT_EQ(all[5].name, "b*c");
  EXPECT_EQ(all[5].damages[0], (std::vector<double>{3, 2}));
}

}  // namespace
}  // namespace winnow::compress::ranked_proxies_test

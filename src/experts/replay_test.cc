// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What has to hold for every policy of the list, on traces that are drawn, and what the bounds with
// hindsight are compared with: slow and obvious versions.
#include "experts/replay.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <set>
#include <string>

#include "base/error.h"
#include "experts/test_traces.h"

namespace winnow::experts::replay_test {
namespace {

using testing::cyclic_trace;
using testing::random_trace;

/// All choices in order, token by token and layer by layer.
std::vector<std::vector<ExpertKey>> requests(const RouteTrace& trace) {
  std::vector<std::vector<ExpertKey>> result;
  std::vector<ExpertId> experts;
  for (std::size_t t = 0; t < trace.tokens(); ++t) {
    for (std::size_t i = 0; i < trace.layers.size(); ++i) {
      trace.choices(t, i, experts);
      result.emplace_back();
      for (const ExpertId expert : experts) result.back().push_back({trace.layers[i], expert});
    }
  }
  return result;
}

/// With slots for all that a request takes: its experts are used, then the oldest leave.
CacheCounts naive_lru(const RouteTrace& trace, std::size_t slots) {
  CacheCounts counts;
  std::list<ExpertKey> held;  // the last used first
  for (const auto& request : requests(trace)) {
    std::vector<ExpertKey> misses;
    for (const ExpertKey key : request) {
      const auto at = std::find(held.begin(), held.end(), key);
      if (at == held.end()) {
        misses.push_back(key);
      } else {
        held.splice(held.begin(), held, at);
        ++counts.hits;
      }
    }
    for (const ExpertKey key : misses) held.push_front(key);
    for (; held.size() > slots; ++counts.evictions) held.pop_back();
    counts.misses += misses.size();
  }
  return counts;
}

/// The fewest misses of all ways to evict from the r-th request on.
std::uint64_t fewest_misses(const std::vector<std::vector<ExpertKey>>& all, std::size_t r,
                            std::set<ExpertKey> held, std::size_t slots) {
  if (r == all.size()) return 0;
  std::uint64_t misses = 0;
  for (const ExpertKey key : all[r]) misses += held.insert(key).second ? 1 : 0;
  if (held.size() <= slots) return misses + fewest_misses(all, r + 1, held, slots);
  std::vector<ExpertKey> others;
  for (const ExpertKey key : held) {
    if (std::count(all[r].begin(), all[r].end(), key) == 0) others.push_back(key);
  }
  std::uint64_t best = ~std::uint64_t{0};
  std::vector<bool> leaves(others.size());
  std::fill_n(leaves.rbegin(), held.size() - slots, true);
  do {
    std::set<ExpertKey> rest = held;
    for (std::size_t i = 0; i < others.size(); ++i) {
      if (leaves[i]) rest.erase(others[i]);
    }
    best = std::min(best, fewest_misses(all, r + 1, rest, slots));
  } while (std::next_permutation(leaves.begin(), leaves.end()));
  return misses + best;
}

TEST(Replay, BeladyIsTheBestOfAllWaysToEvict) {
  for (const std::uint64_t seed : {1, 2, 3, 4, 5, 6}) {
    const RouteTrace trace = random_trace(2, 4, 2, 6, seed);
    for (const std::size_t slots : {2, 3, 4, 5}) {
      EXPECT_EQ(replay_belady(trace, slots).misses, fewest_misses(requests(trace), 0, {}, slots))
          << "seed " << seed << ", " << slots << " slots";
    }
  }
}

TEST(Replay, TheStaticOptimumIsTheBestOfAllSets) {
  const RouteTrace trace = random_trace(2, 4, 2, 20, 7);
  const auto all = requests(trace);
  for (const std::size_t slots : {2, 3, 5, 8, 9}) {
    std::uint64_t best = 0;
    for (std::uint32_t set = 0; set < 256; ++set) {
      if (static_cast<std::size_t>(__builtin_popcount(set)) > slots) continue;
      std::uint64_t hits = 0;
      for (const auto& request : all) {
        for (const ExpertKey key : request) hits += set >> shape_of(trace, 2).number(key) & 1U;
      }
      best = std::max(best, hits);
    }
    EXPECT_EQ(replay_static_optimum(trace, slots).hits, best) << slots;
  }
}

TEST(Replay, LruDoesWhatANaiveLruDoes) {
  const RouteTrace trace = random_trace(4, 16, 3, 200, 11);
  for (const std::size_t slots : {3, 4, 7, 12, 20, 40, 63, 64}) {
    EXPECT_EQ(replay(trace, find_cache_policy("lru"), slots, 0), naive_lru(trace, slots)) << slots;
  }
}

class EveryPolicy : public ::testing::TestWithParam<const PolicyEntry*> {
 protected:
  const PolicyEntry& policy() const { return *GetParam(); }
};

TEST_P(EveryPolicy, HasNoMoreHitsThanBelady) {
  for (const std::uint64_t seed : {1, 2, 3}) {
    const RouteTrace trace = random_trace(3, 12, 3, 150, seed);
    for (std::size_t slots = 3; slots <= 37; ++slots) {
      const CacheCounts counts = replay(trace, policy(), slots, seed);
      const CacheCounts bound = replay_belady(trace, slots);
      EXPECT_LE(counts.hits, bound.hits) << slots << " slots, seed " << seed;
      EXPECT_EQ(counts.requests(), bound.requests());
    }
  }
}

TEST_P(EveryPolicy, MissesOnlyFirstUsesWhenAllExpertsFit) {
  const RouteTrace trace = random_trace(3, 12, 3, 150, 4);
  const std::size_t distinct = distinct_experts(trace);
  const CacheCounts counts = replay(trace, policy(), distinct, 0);
  EXPECT_EQ(counts.misses, distinct);
  EXPECT_EQ(counts.evictions, 0U);
}

TEST_P(EveryPolicy, EvictsOnlyAsManyAsDoNotFit) {
  const RouteTrace trace = random_trace(3, 12, 3, 150, 5);
  const CacheCounts counts = replay(trace, policy(), 10, 0);
  EXPECT_EQ(counts.evictions, counts.misses - 10);
}

TEST_P(EveryPolicy, DoesTheSameAgain) {
  const RouteTrace trace = random_trace(3, 12, 3, 150, 6);
  EXPECT_EQ(replay(trace, policy(), 12, 5), replay(trace, policy(), 12, 5));
}

TEST_P(EveryPolicy, FindsAVictimAmongUnlockedOnesOnly) {
  const CacheShape shape{.num_layers = 2, .num_experts = 4, .top_k = 2, .slots = 4};
  const auto policy = GetParam()->make(shape, 0);
  KeySet locked(shape);
  const ExpertKey incoming{LayerId{1}, ExpertId{3}};
  EXPECT_EQ(policy->victim(incoming, Origin::kDemand, locked), std::nullopt);
  for (std::uint32_t e = 0; e < 4; ++e) {
    policy->on_admit({LayerId{0}, ExpertId{e}}, e == 1 ? Origin::kPrefill : Origin::kDemand);
    locked.insert({LayerId{0}, ExpertId{e}});
  }
  EXPECT_EQ(policy->victim(incoming, Origin::kDemand, locked), std::nullopt);
  for (std::uint32_t e = 0; e < 4; ++e) {
    const ExpertKey free{LayerId{0}, ExpertId{e}};
    locked.erase(free);
    EXPECT_EQ(policy->victim(incoming, Origin::kDemand, locked), free);
    locked.insert(free);
  }
}

INSTANTIATE_TEST_SUITE_P(, EveryPolicy, ::testing::ValuesIn(cache_policies()),
                         [](const auto& policy) {
                           std::string name(policy.param->name);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(Replay, BelowOneTokensExpertsLruNeverHitsAndARandomSubsetHitsByItsShare) {
  const std::size_t slots = 60;
  const RouteTrace trace = cyclic_trace(8, 16, 8, 4000);  // 64 a token, 128 in all
  EXPECT_EQ(replay(trace, find_cache_policy("lru"), slots, 0).hits, 0U);
  EXPECT_EQ(replay(trace, find_cache_policy("segmented-lru"), slots, 0).hits, 0U);
  // Up to 8 slots hold what passes through.
  const double rate = replay(trace, find_cache_policy("random-subset"), slots, 0).hit_rate();
  EXPECT_GE(rate, (60.0 - 8) / 128 - 0.01);
  EXPECT_LE(rate, 60.0 / 128 + 0.01);
}

TEST(Replay, RefusesSlotsThatCannotHoldOneRequest) {
  const RouteTrace trace = cyclic_trace(2, 4, 2, 3);
  for (const auto function : {replay_belady, replay_static_optimum}) {
    try {
      function(trace, 1);
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
    }
  }
}

TEST(Replay, ATraceWithoutTokensHasNoRequests) {
  const RouteTrace trace = cyclic_trace(2, 4, 2, 0);
  EXPECT_EQ(replay_belady(trace, 2).requests(), 0U);
  EXPECT_EQ(replay_static_optimum(trace, 2).requests(), 0U);
  EXPECT_EQ(distinct_experts(trace), 0U);
  for (const PolicyEntry* policy : cache_policies()) {
    EXPECT_EQ(replay(trace, *policy, 2, 0).requests(), 0U);
  }
}

}  // namespace
}  // namespace winnow::experts::replay_test

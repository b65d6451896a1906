// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <string_view>

#include "experts/policy_probe.h"
#include "experts/replay.h"
#include "experts/test_traces.h"

namespace winnow::experts::adaptive_test {
namespace {

using testing::key;
using testing::PolicyProbe;

double hit_rate(const RouteTrace& trace, std::string_view policy, std::size_t slots) {
  return replay(trace, find_cache_policy(policy), slots, 0).hit_rate();
}

TEST(AdaptivePolicy, IsTheFirstCandidateUntilAnotherLeads) {
  const RouteTrace trace = testing::random_trace(3, 16, 2, 300, 1);  // 900 requests
  for (const std::size_t slots : {8, 16, 32}) {
    EXPECT_EQ(hit_rate(trace, "adaptive", slots), hit_rate(trace, "sequence-matching", slots))
        << slots;
  }
}

// Every expert is used once in a cycle that is longer than there are slots: recency and counts have
// none of them when its turn comes.
TEST(AdaptivePolicy, LeavesAPolicyThatTheRoutesDefeat) {
  const RouteTrace trace = testing::cyclic_trace(2, 40, 2, 12000);
  const double best = hit_rate(trace, "random-subset", 40);
  EXPECT_NEAR(best, 38.0 / 80, 0.01);  // two slots hold what passes through
  EXPECT_LT(hit_rate(trace, "lfru", 40), 0.2);
  EXPECT_GT(hit_rate(trace, "adaptive", 40), best - 0.1);
}

TEST(AdaptivePolicy, IsNeverFarBehindTheBestOfItsCandidates) {
  for (const std::uint64_t seed : {1, 2, 3}) {
    const RouteTrace trace = testing::random_trace(4, 24, 3, 4000, seed);
    for (const std::size_t slots : {12, 24, 48}) {
      double best = 0;
      for (const char* name :
           {"lfru", "sequence-matching", "predicted-demand", "segmented-lru", "random-subset"}) {
        best = std::max(best, hit_rate(trace, name, slots));
      }
      EXPECT_GT(hit_rate(trace, "adaptive", slots), best - 0.03) << seed << ", " << slots;
    }
  }
}

TEST(AdaptivePolicy, KnowsWhatHasASlotAfterItHasSwitched) {
  constexpr CacheShape kShape{.num_layers = 1, .num_experts = 40, .top_k = 1, .slots = 10};
  PolicyProbe probe("adaptive", kShape);
  std::vector<ExpertKey> held;
  for (std::uint32_t i = 0; i < 6000; ++i) {
    const ExpertKey used = key(0, i % 40);
    probe.use(1, used);
    if (std::count(held.begin(), held.end(), used) != 0) continue;
    if (held.size() == kShape.slots) {
      const auto leaves = probe.victim(used);
      ASSERT_TRUE(leaves.has_value());
      ASSERT_EQ(std::erase(held, *leaves), 1U) << "it had no slot";
      probe.evict(*leaves);
    }
    probe.admit(used);
    held.push_back(used);
  }
}

}  // namespace
}  // namespace winnow::experts::adaptive_test

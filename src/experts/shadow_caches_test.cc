// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/shadow_caches.h"

#include <gtest/gtest.h>

#include <array>

#include "experts/replay.h"
#include "experts/test_traces.h"

namespace winnow::experts::shadow_caches_test {
namespace {

using testing::cyclic_trace;

class ShadowCachesTest : public ::testing::Test {
 protected:
  /// The policy after each token.
  std::vector<const PolicyEntry*> run(ShadowCaches& shadows, const RouteTrace& trace) {
    std::vector<const PolicyEntry*> chosen;
    std::vector<ExpertId> experts;
    shadows.begin_sequence();
    for (std::size_t t = 0; t < trace.tokens(); ++t) {
      shadows.begin_pass();
      for (std::size_t i = 0; i < trace.layers.size(); ++i) {
        trace.choices(t, i, experts);
        shadows.on_request(trace.layers[i], experts);
      }
      chosen.push_back(&shadows.choose());
    }
    return chosen;
  }

  const PolicyEntry* lru_ = &find_cache_policy("lru");
  const PolicyEntry* random_ = &find_cache_policy("random-subset");
  std::array<const PolicyEntry*, 2> both_{lru_, random_};
};

TEST_F(ShadowCachesTest, ChooseAnotherPolicyAfterAFullPeriodInWhichItWasBetter) {
  const RouteTrace trace = cyclic_trace(4, 16, 4, 100);  // LRU has no hits with 10 slots
  ShadowCaches shadows(shape_of(trace, 10), both_, *lru_, {.requests = 200});
  const auto chosen = run(shadows, trace);
  EXPECT_EQ(chosen[48], lru_);  // 196 requests
  EXPECT_EQ(chosen[49], random_);
  EXPECT_EQ(chosen.back(), random_);
}

TEST_F(ShadowCachesTest, KeepTheActivePolicyWhenTheLeadIsSmall) {
  const RouteTrace trace = cyclic_trace(4, 16, 4, 100);
  ShadowCaches shadows(shape_of(trace, 10), both_, *lru_, {.lead = 0.5, .requests = 200});
  EXPECT_EQ(run(shadows, trace).back(), lru_);
}

TEST_F(ShadowCachesTest, CompareWhatTheLastPeriodBrought) {
  const RouteTrace cycle = cyclic_trace(4, 16, 4, 100);
  ShadowCaches shadows(shape_of(cycle, 40), both_, *lru_, {.requests = 200});
  EXPECT_EQ(run(shadows, cycle).back(), random_);
  // Of all requests the random subset has more hits; since the texts changed, LRU misses nothing.
  EXPECT_EQ(run(shadows, cyclic_trace(4, 8, 4, 100)).back(), lru_);
}

TEST_F(ShadowCachesTest, AskedTwiceInAPeriodTheyAnswerTheSame) {
  const RouteTrace trace = cyclic_trace(4, 16, 4, 50);
  ShadowCaches shadows(shape_of(trace, 10), both_, *random_, {.requests = 200});
  run(shadows, trace);
  EXPECT_EQ(&shadows.choose(), random_);
  EXPECT_EQ(&shadows.choose(), &shadows.active());
}

}  // namespace
}  // namespace winnow::experts::shadow_caches_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/simulated_cache.h"

#include <gtest/gtest.h>

#include <array>

namespace winnow::experts::simulated_cache_test {
namespace {

constexpr CacheShape kShape{.num_layers = 2, .num_experts = 8, .top_k = 2, .slots = 3};
constexpr std::array kFour = {ExpertId{0}, ExpertId{1}, ExpertId{2}, ExpertId{3}};

TEST(SimulatedCache, CountsWhatWasThereBeforeTheRequestAsHits) {
  SimulatedCache cache(kShape, find_cache_policy("lru").make(kShape, 0));
  cache.begin_pass();
  cache.request(LayerId{0}, std::span(kFour).first(2));
  cache.request(LayerId{1}, std::span(kFour).first(1));
  cache.begin_pass();
  cache.request(LayerId{0}, std::span(kFour).subspan(1, 2));
  EXPECT_EQ(cache.counts(), (CacheCounts{.hits = 1, .misses = 4, .evictions = 1}));
  EXPECT_FALSE(cache.residents().contains({LayerId{0}, ExpertId{0}}));
}

TEST(SimulatedCache, ARequestOfMoreThanFitsFillsAllSlotsAndGoesOn) {
  for (const PolicyEntry* policy : cache_policies()) {
    SimulatedCache cache(kShape, policy->make(kShape, 0));
    cache.request(LayerId{1}, std::span(kFour).first(1));
    cache.request(LayerId{0}, kFour);
    EXPECT_EQ(cache.residents().size(), 3U);
    EXPECT_EQ(cache.counts(), (CacheCounts{.hits = 0, .misses = 5, .evictions = 1}));
  }
}

}  // namespace
}  // namespace winnow::experts::simulated_cache_test

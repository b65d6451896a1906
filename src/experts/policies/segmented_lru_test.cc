// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "experts/policy_probe.h"

namespace winnow::experts::segmented_lru_test {
namespace {

using testing::key;
using testing::PolicyProbe;

// A token uses one expert; four slots are for the protected.
constexpr CacheShape kShape{.num_layers = 1, .num_experts = 9, .top_k = 1, .slots = 5};
constexpr ExpertKey kIncoming{LayerId{0}, ExpertId{8}};

/// Experts 0 to 4 have slots, in this order.
PolicyProbe full_cache() {
  PolicyProbe probe("segmented-lru", kShape);
  for (const std::uint32_t expert : {0, 1, 2, 3, 4}) probe.admit(key(0, expert));
  return probe;
}

TEST(SegmentedLruPolicy, KeepsWhatWasUsedAgainLongerThanWhatIsNew) {
  PolicyProbe probe = full_cache();
  probe.request(0, {0});
  probe.evict(key(0, 1));
  probe.admit(key(0, 5));
  for (const std::uint32_t expert : {2, 3, 4, 5}) {
    EXPECT_EQ(probe.victim(kIncoming), key(0, expert));
    probe.evict(key(0, expert));
  }
  EXPECT_EQ(probe.victim(kIncoming), key(0, 0));
}

TEST(SegmentedLruPolicy, TheColdestProtectedGoesBackOnProbationWhenAllWereUsedAgain) {
  PolicyProbe probe = full_cache();
  for (const std::uint32_t expert : {0, 1, 2, 3, 4}) probe.request(0, {expert});
  EXPECT_EQ(probe.victim(kIncoming), key(0, 0));
}

TEST(SegmentedLruPolicy, ASpeculationDrivesOutNoProtectedExpert) {
  PolicyProbe probe = full_cache();
  for (const std::uint32_t expert : {0, 1, 2, 3}) probe.request(0, {expert});
  probe.lock(key(0, 4));
  EXPECT_EQ(probe.victim(kIncoming, Origin::kSpeculation), std::nullopt);
  EXPECT_EQ(probe.victim(kIncoming), key(0, 0));
}

TEST(SegmentedLruPolicy, EvictsWhatAPromptStreamedThroughFirst) {
  PolicyProbe probe = full_cache();
  probe.evict(key(0, 4));
  probe.admit(key(0, 7), Origin::kPrefill);
  EXPECT_EQ(probe.victim(kIncoming), key(0, 7));
}

TEST(SegmentedLruPolicy, OneTokensExpertsHaveRoomOnProbation) {
  // A token uses two experts: of three slots one is protected, not 80 %.
  PolicyProbe probe("segmented-lru", {.num_layers = 2, .num_experts = 9, .top_k = 1, .slots = 3});
  for (const std::uint32_t expert : {0, 1, 2}) probe.admit(key(0, expert));
  probe.request(0, {0});
  probe.request(0, {1});
  EXPECT_EQ(probe.victim(kIncoming), key(0, 2));
  probe.evict(key(0, 2));
  EXPECT_EQ(probe.victim(kIncoming), key(0, 0));
}

}  // namespace
}  // namespace winnow::experts::segmented_lru_test

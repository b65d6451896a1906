// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "experts/cache_policy.h"

namespace winnow::experts {
namespace {

constexpr CacheShape kShape{.num_layers = 1, .num_experts = 9, .top_k = 1, .slots = 5};

ExpertKey key(std::uint32_t expert) { return {LayerId{0}, ExpertId{expert}}; }

/// Experts 0 to 4 have slots, in this order.
class SegmentedLruPolicy : public testing::Test {
 protected:
  SegmentedLruPolicy() {
    for (std::uint32_t e = 0; e < 5; ++e) policy_->on_admit(key(e), Origin::kDemand);
  }
  void request(std::uint32_t expert) {
    const ExpertId wanted{expert};
    policy_->on_request(LayerId{0}, {&wanted, 1});
  }
  std::optional<ExpertKey> victim(Origin origin = Origin::kDemand) {
    return policy_->victim(key(8), origin, locked_);
  }

  std::unique_ptr<CachePolicy> policy_ = find_cache_policy("segmented-lru").make(kShape, 0);
  KeySet locked_{kShape};
};

TEST_F(SegmentedLruPolicy, KeepsWhatWasUsedAgainLongerThanWhatIsNew) {
  request(0);
  policy_->on_evict(*victim());  // expert 1
  policy_->on_admit(key(5), Origin::kDemand);
  for (const std::uint32_t expert : {2, 3, 4, 5}) {
    EXPECT_EQ(victim(), key(expert));
    policy_->on_evict(key(expert));
  }
  EXPECT_EQ(victim(), key(0));
}

TEST_F(SegmentedLruPolicy, TheColdestProtectedGoesBackOnProbationWhenAllWereUsedAgain) {
  for (const std::uint32_t expert : {0, 1, 2, 3, 4}) request(expert);
  EXPECT_EQ(victim(), key(0));  // four of five slots are protected
}

TEST_F(SegmentedLruPolicy, ASpeculationDrivesOutNoProtectedExpert) {
  for (const std::uint32_t expert : {0, 1, 2, 3}) request(expert);
  locked_.insert(key(4));
  EXPECT_EQ(victim(Origin::kSpeculation), std::nullopt);
  EXPECT_EQ(victim(), key(0));
}

TEST_F(SegmentedLruPolicy, EvictsWhatAPromptStreamedThroughFirst) {
  policy_->on_evict(key(4));
  policy_->on_admit(key(7), Origin::kPrefill);
  EXPECT_EQ(victim(), key(7));
}

}  // namespace
}  // namespace winnow::experts

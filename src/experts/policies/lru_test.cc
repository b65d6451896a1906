// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "base/error.h"
#include "experts/cache_policy.h"

namespace winnow::experts::lru_test {
namespace {

constexpr CacheShape kShape{.num_layers = 2, .num_experts = 4, .top_k = 1, .slots = 3};

ExpertKey key(std::uint32_t layer, std::uint32_t expert) {
  return {LayerId{layer}, ExpertId{expert}};
}

class LruPolicy : public ::testing::Test {
 protected:
  void request(ExpertKey wanted) { policy_->on_request(wanted.layer, {&wanted.expert, 1}); }
  std::optional<ExpertKey> victim() { return policy_->victim(key(1, 3), Origin::kDemand, locked_); }

  std::unique_ptr<CachePolicy> policy_ = find_cache_policy("lru").make(kShape, 0);
  KeySet locked_{kShape};
};

TEST_F(LruPolicy, EvictsWhatWasNotUsedForTheLongestTime) {
  for (const std::uint32_t expert : {0, 1, 2}) policy_->on_admit(key(0, expert), Origin::kDemand);
  request(key(0, 0));
  EXPECT_EQ(victim(), key(0, 1));
  policy_->on_evict(key(0, 1));
  EXPECT_EQ(victim(), key(0, 2));
}

TEST_F(LruPolicy, KeepsLockedExperts) {
  EXPECT_EQ(victim(), std::nullopt);
  for (const std::uint32_t expert : {0, 1}) policy_->on_admit(key(0, expert), Origin::kDemand);
  locked_.insert(key(0, 0));
  EXPECT_EQ(victim(), key(0, 1));
  locked_.insert(key(0, 1));
  EXPECT_EQ(victim(), std::nullopt);
}

TEST_F(LruPolicy, EvictsWhatAPromptStreamedThroughFirst) {
  policy_->on_admit(key(0, 0), Origin::kDemand);
  policy_->on_admit(key(1, 0), Origin::kPrefill);
  EXPECT_EQ(victim(), key(1, 0));
}

TEST(CachePolicies, AnUnknownNameIsRefusedWithTheNamesThatThereAre) {
  try {
    find_cache_policy("clock");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_NE(std::string(error.what()).find("lru"), std::string::npos);
  }
}

}  // namespace
}  // namespace winnow::experts::lru_test

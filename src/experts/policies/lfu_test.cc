// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "experts/policy_probe.h"

namespace winnow::experts::lfu_test {
namespace {

using testing::key;
using testing::PolicyProbe;

constexpr CacheShape kShape{.num_layers = 2, .num_experts = 8, .top_k = 1, .slots = 3};

TEST(LfuPolicy, EvictsWhatWasUsedLeast) {
  PolicyProbe probe("lfu", kShape);
  for (const std::uint32_t expert : {0, 1, 2}) probe.admit(key(0, expert));
  probe.use(3, key(0, 0));
  probe.use(1, key(0, 1));
  probe.use(2, key(0, 2));
  EXPECT_EQ(probe.victim(key(1, 0)), key(0, 1));
}

TEST(LfuPolicy, RemembersTheUsesOfWhatItEvicted) {
  PolicyProbe probe("lfu", kShape);
  probe.admit(key(0, 0));
  probe.use(5, key(0, 0));
  probe.evict(key(0, 0));
  probe.admit(key(0, 1));
  probe.use(2, key(0, 1));
  probe.admit(key(0, 0));
  EXPECT_EQ(probe.victim(key(1, 0)), key(0, 1));
}

TEST(LfuPolicy, OfEqualsTheLowerKeyGoes) {
  PolicyProbe probe("lfu", kShape);
  probe.admit(key(1, 0));
  probe.admit(key(0, 7));
  probe.admit(key(0, 3));
  EXPECT_EQ(probe.victim(key(1, 1)), key(0, 3));
}

}  // namespace
}  // namespace winnow::experts::lfu_test

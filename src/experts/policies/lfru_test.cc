// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "experts/policy_probe.h"

namespace winnow::experts::lfru_test {
namespace {

using testing::key;
using testing::PolicyProbe;

constexpr CacheShape kShape{.num_layers = 1, .num_experts = 8, .top_k = 1, .slots = 2};

TEST(LfruPolicy, OfTwoUsedAtTheSameTimeTheMoreFrequentStays) {
  PolicyProbe probe("lfru", kShape);
  probe.admit(key(0, 0));
  probe.admit(key(0, 1));
  probe.use(3, key(0, 1));
  probe.policy().begin_pass();
  probe.request(0, {0, 1});
  EXPECT_EQ(probe.victim(key(0, 2)), key(0, 0));
}

TEST(LfruPolicy, OfTwoUsedEquallyOftenTheOlderGoes) {
  PolicyProbe probe("lfru", kShape);
  probe.admit(key(0, 0));
  probe.admit(key(0, 1));
  probe.use(2, key(0, 1));
  probe.use(2, key(0, 0));
  EXPECT_EQ(probe.victim(key(0, 2)), key(0, 1));
}

TEST(LfruPolicy, MuchUseLongAgoIsWorthLessThanAUseNow) {
  PolicyProbe probe("lfru", kShape);
  probe.admit(key(0, 0));
  probe.use(10, key(0, 0));
  for (int pass = 0; pass < 1000; ++pass) probe.policy().begin_pass();
  probe.admit(key(0, 1));
  probe.use(1, key(0, 1));
  EXPECT_EQ(probe.victim(key(0, 2)), key(0, 0));
}

}  // namespace
}  // namespace winnow::experts::lfru_test

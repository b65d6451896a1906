// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>

#include "experts/policy_probe.h"

namespace winnow::experts::random_subset_test {
namespace {

using testing::key;
using testing::PolicyProbe;

constexpr CacheShape kShape{.num_layers = 2, .num_experts = 16, .top_k = 1, .slots = 4};

/// The four that stay once all experts have passed.
std::vector<ExpertKey> survivors(std::uint64_t seed) {
  PolicyProbe probe("random-subset", kShape, seed);
  std::vector<ExpertKey> held;
  for (std::size_t i = 0; i < kShape.num_keys(); ++i) {
    probe.admit(kShape.key(i));
    held.push_back(kShape.key(i));
    if (held.size() <= kShape.slots) continue;
    const ExpertKey leaves = *probe.victim(kShape.key(i));
    probe.evict(leaves);
    std::erase(held, leaves);
  }
  return held;
}

TEST(RandomSubsetPolicy, TheSeedSaysWhoStays) {
  EXPECT_EQ(survivors(1), survivors(1));
  EXPECT_NE(survivors(1), survivors(2));
}

TEST(RandomSubsetPolicy, UseChangesNothing) {
  PolicyProbe probe("random-subset", kShape);
  for (const std::uint32_t expert : {0, 1, 2}) probe.admit(key(0, expert));
  const auto before = probe.victim(key(1, 0));
  probe.use(20, *before);
  EXPECT_EQ(probe.victim(key(1, 0)), before);
}

TEST(RandomSubsetPolicy, ASpeculationOutsideTheSubsetIsDropped) {
  const std::vector<ExpertKey> subset = survivors(1);
  PolicyProbe probe("random-subset", kShape, 1);
  for (const ExpertKey kept : subset) probe.admit(kept);
  for (std::size_t i = 0; i < kShape.num_keys(); ++i) {
    const ExpertKey other = kShape.key(i);
    if (std::count(subset.begin(), subset.end(), other) > 0) continue;
    EXPECT_EQ(probe.victim(other, Origin::kSpeculation), std::nullopt);
    EXPECT_NE(probe.victim(other), std::nullopt);
  }
}

}  // namespace
}  // namespace winnow::experts::random_subset_test

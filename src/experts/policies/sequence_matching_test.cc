// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "experts/policy_probe.h"

namespace winnow::experts::sequence_matching_test {
namespace {

using testing::key;
using testing::PolicyProbe;

constexpr CacheShape kShape{.num_layers = 2, .num_experts = 8, .top_k = 1, .slots = 4};

/// Two texts: one uses expert 0 in layer 0 and 1 in layer 1, the other 4 and 5.
PolicyProbe with_two_texts() {
  PolicyProbe probe("sequence-matching", kShape);
  for (const std::uint32_t first : {0, 4}) {
    probe.policy().begin_sequence();
    for (int pass = 0; pass < 3; ++pass) {
      probe.policy().begin_pass();
      probe.request(0, {first});
      probe.request(1, {first + 1});
    }
  }
  probe.policy().begin_sequence();
  return probe;
}

TEST(SequenceMatchingPolicy, KeepsWhatTheNearestFormerTextUsedNext) {
  for (const std::uint32_t first : {0, 4}) {
    PolicyProbe probe = with_two_texts();
    for (const std::uint32_t expert : {1, 5}) probe.admit(key(1, expert));
    probe.policy().begin_pass();
    probe.request(0, {first});
    EXPECT_EQ(probe.victim(key(0, 7)), key(1, first == 0 ? 5 : 1));
  }
}

TEST(SequenceMatchingPolicy, OfEquallyLikelyExpertsTheLayerJustPassedGives) {
  PolicyProbe probe = with_two_texts();
  probe.policy().begin_pass();
  probe.request(0, {0});
  probe.admit(key(1, 7));
  probe.admit(key(0, 7));
  EXPECT_EQ(probe.victim(key(1, 6)), key(0, 7));
}

TEST(SequenceMatchingPolicy, WithoutAFormerTextItGoesByThePresentOne) {
  PolicyProbe probe("sequence-matching", kShape);
  probe.policy().begin_sequence();
  for (const std::uint32_t expert : {2, 3}) probe.admit(key(1, expert));
  probe.use(2, key(1, 2));
  probe.use(1, key(1, 3));
  probe.policy().begin_pass();
  probe.request(0, {0});
  EXPECT_EQ(probe.victim(key(0, 7)), key(1, 3));
}

}  // namespace
}  // namespace winnow::experts::sequence_matching_test

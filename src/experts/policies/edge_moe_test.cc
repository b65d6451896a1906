// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "experts/policy_probe.h"

namespace winnow::experts::edge_moe_test {
namespace {

using testing::key;
using testing::PolicyProbe;

constexpr CacheShape kShape{.num_layers = 4, .num_experts = 8, .top_k = 1, .slots = 4};

TEST(EdgeMoePolicy, OfEquallyFrequentExpertsTheLayerThatComesLastGives) {
  PolicyProbe probe("edge-moe", kShape);
  for (const std::uint32_t layer : {0, 1, 2, 3}) {
    probe.request(layer, {0});
    probe.admit(key(layer, 0));
  }
  probe.request(1, {5});  // layer 1 itself is farthest, then 0, 3, 2
  for (const std::uint32_t layer : {1, 0, 3, 2}) {
    EXPECT_EQ(probe.victim(key(1, 5)), key(layer, 0));
    probe.evict(key(layer, 0));
  }
}

TEST(EdgeMoePolicy, AFrequentExpertOutweighsDistance) {
  PolicyProbe probe("edge-moe", kShape);
  probe.admit(key(0, 0));
  probe.admit(key(2, 0));
  probe.use(9, key(0, 0));  // worth 9.5 / 3 seen from layer 1
  probe.use(1, key(2, 0));  // worth 1.5 / 1
  probe.request(1, {5});
  EXPECT_EQ(probe.victim(key(1, 5)), key(2, 0));
}

}  // namespace
}  // namespace winnow::experts::edge_moe_test

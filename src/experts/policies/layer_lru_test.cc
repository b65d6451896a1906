// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "experts/policy_probe.h"

namespace winnow::experts::layer_lru_test {
namespace {

using testing::key;
using testing::PolicyProbe;

constexpr CacheShape kShape{.num_layers = 3, .num_experts = 8, .top_k = 1, .slots = 4};

TEST(LayerLruPolicy, TheOldestOfTheOwnLayerGoesWhenSharesAreEven) {
  PolicyProbe probe("layer-lru", kShape);
  for (const std::uint32_t layer : {0, 1}) {
    for (const std::uint32_t expert : {0, 1}) probe.admit(key(layer, expert));
  }
  probe.request(1, {0});
  EXPECT_EQ(probe.victim(key(1, 5)), key(1, 1));
  EXPECT_EQ(probe.victim(key(0, 5)), key(0, 0));
}

TEST(LayerLruPolicy, ALayerWithMoreThanOthersGivesToOneWithLess) {
  PolicyProbe probe("layer-lru", kShape);
  for (const std::uint32_t expert : {0, 1, 2}) probe.admit(key(1, expert));
  probe.admit(key(0, 0));
  EXPECT_EQ(probe.victim(key(0, 5)), key(1, 0));
  EXPECT_EQ(probe.victim(key(2, 5)), key(1, 0));
}

TEST(LayerLruPolicy, AnotherLayerGivesWhenAllOfTheFullestAreLocked) {
  PolicyProbe probe("layer-lru", kShape);
  for (const std::uint32_t expert : {0, 1, 2}) probe.admit(key(1, expert));
  probe.admit(key(0, 0));
  for (const std::uint32_t expert : {0, 1, 2}) probe.lock(key(1, expert));
  EXPECT_EQ(probe.victim(key(1, 5)), key(0, 0));
}

}  // namespace
}  // namespace winnow::experts::layer_lru_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "experts/policy_probe.h"

namespace winnow::experts::predicted_demand_test {
namespace {

using testing::key;
using testing::PolicyProbe;

constexpr CacheShape kShape{.num_layers = 2, .num_experts = 8, .top_k = 1, .slots = 6};

TEST(PredictedDemandPolicy, ALayerThatUsesMoreDifferentExpertsGetsMoreSlots) {
  PolicyProbe probe("predicted-demand", kShape);
  for (std::uint32_t pass = 0; pass < 64; ++pass) {  // layer 0 uses one expert, layer 1 all
    probe.policy().begin_pass();
    probe.request(0, {0});
    probe.request(1, {pass % 8});
  }
  for (const std::uint32_t layer : {0, 1}) {
    for (const std::uint32_t expert : {0, 1, 2}) probe.admit(key(layer, expert));
  }
  EXPECT_EQ(index(probe.victim(key(1, 7))->layer), 0U);
}

TEST(PredictedDemandPolicy, WithinALayerTheRarestGoes) {
  PolicyProbe probe("predicted-demand", kShape);
  for (const std::uint32_t expert : {0, 1, 2, 3}) probe.admit(key(0, expert));
  for (const std::uint32_t expert : {0, 1, 3}) probe.use(2, key(0, expert));
  EXPECT_EQ(probe.victim(key(0, 7)), key(0, 2));
}

TEST(PredictedDemandPolicy, WhatAPredictorNamesStaysUntilItWasWrong) {
  PolicyProbe probe("predicted-demand", kShape);
  for (const std::uint32_t expert : {0, 1, 2, 3}) probe.admit(key(0, expert));
  for (const std::uint32_t expert : {0, 1, 2}) probe.use(2, key(0, expert));
  const ExpertId named{3};
  probe.policy().on_prediction(LayerId{0}, {&named, 1});
  EXPECT_EQ(probe.victim(key(0, 7)), key(0, 0));
  probe.use(3, key(0, 0));
  EXPECT_EQ(probe.victim(key(0, 7)), key(0, 3));
}

}  // namespace
}  // namespace winnow::experts::predicted_demand_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How much text the sweep over noise points reads, and what is predicted from them.
#include "compress/damage.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/testing.h"
#include "quant/codec.h"

namespace winnow::compress::damage_test {
namespace {

using model::Role;

/// A model of that many layers with two noise points for each of seven groups.
struct Deep {
  explicit Deep(std::uint32_t layers) {
    spec.num_hidden_layers = layers;
    for (std::uint32_t layer = 0; layer < layers; ++layer) {
      for (int role = 0; role < 7; ++role) {
        groups.emplace_back();
        groups.back().role = Role::kQueryProj;
        groups.back().layer = LayerId{layer};
        groups.back().noise.resize(2);
      }
    }
  }
  std::vector<metrics::Window> windows(std::uint64_t calibration_tokens) const {
    return sweep_windows(groups, spec, probe, calibration_tokens);
  }

  model::ModelSpec spec;
  std::vector<TensorGroup> groups;
  metrics::WindowSet probe = testing::random_windows(8, 512);
};

std::uint64_t tokens_of(const std::vector<metrics::Window>& windows) {
  std::uint64_t tokens = 0;
  for (const auto& window : windows) tokens += window.tokens.size();
  return tokens;
}

TEST(SweepWindows, AreTheWholeProbeForAModelOfFewLayers) {
  const Deep model(6);
  const auto windows = model.windows(1000);
  ASSERT_EQ(windows.size(), model.probe.windows.size());
  EXPECT_EQ(tokens_of(windows), tokens_of(model.probe.windows));
}

TEST(SweepWindows, CostADeepModelNoMoreThanAPassOfTheCalibrationText) {
  const Deep model(48);
  const std::uint64_t passes = 14 * 48 * 49 / 2 + 1;
  const std::uint64_t calibration = 500000;
  const auto windows = model.windows(calibration);
  EXPECT_LE(tokens_of(windows) * passes, calibration * 48);
  EXPECT_GT(tokens_of(windows), kLeastSweepTokens);
  EXPECT_GT(windows.size(), 4U);
  for (const auto& window : windows) EXPECT_GT(window.scored(), 0U);
}

TEST(SweepWindows, AreAtLeastSomeBeginningsOfDifferentWindows) {
  const Deep model(200);
  const auto windows = model.windows(1);
  EXPECT_EQ(tokens_of(windows), kLeastSweepTokens);
  EXPECT_EQ(windows.size(), 4U);
  EXPECT_EQ(windows[1].tokens[5], model.probe.windows[2].tokens[5]);
}

TEST(SweepWindows, AreWholeWindowsWhereTheseAreShort) {
  Deep model(200);
  model.probe = testing::random_windows(2, 20);
  model.probe.windows.resize(1);
  EXPECT_EQ(tokens_of(model.windows(1)), 21U);  // the start token and 20
}

GroupOption option(const char* codec, double error) {
  GroupOption made;
  made.codec = quant::find_codec(codec);
  made.error = error;
  return made;
}

TEST(PredictedDamage, IsNeverBelowThatOfTheFinestRoundingAndNothingWithoutRounding) {
  std::vector<TensorGroup> groups(1);
  TensorGroup& group = groups[0];
  group.noise = {{quant::find_codec("Q8_0"), 0.01, 0.003},
                 {quant::find_codec("Q5_0"), 1, 0.01},
                 {quant::find_codec("Q3_K"), 16, 0.1}};
  group.options = {option("Q4_0", 2), option("Q8_0", 0.005), option("BF16", 0)};
  predict_damage(groups);
  EXPECT_NEAR(group.options[0].predicted_kl, 0.01 * std::pow(10, 0.25), 1e-12);
  EXPECT_EQ(group.options[1].predicted_kl, 0.003);
  EXPECT_EQ(group.options[2].predicted_kl, 0);
  // The activations' rounding is no part of the slope.
  EXPECT_DOUBLE_EQ(group.kl_per_error, 0.01);
  group.noise.resize(1);
  predict_damage(groups);
  EXPECT_DOUBLE_EQ(group.kl_per_error, 0.3);
}

TEST(NoisePoints, AreDividedAmongExpertsAsTheErrorsOfTheirTypeAre) {
  TensorGroup group;
  group.role = Role::kExpertUpProj;
  group.parts = 2;
  group.weights = 64;
  group.noise = {{quant::find_codec("Q8_0"), 0.4, 0.2}};
  group.options = {option("Q8_0", 8)};
  group.options[0].part_errors = {2, 6};
  const std::vector<TensorGroup> divided = divide_group(group);
  ASSERT_EQ(divided.size(), 2U);
  EXPECT_DOUBLE_EQ(divided[0].noise[0].kl, 0.05);
  EXPECT_DOUBLE_EQ(divided[1].noise[0].kl, 0.15);
  EXPECT_DOUBLE_EQ(divided[1].noise[0].error, 0.3);
}

}  // namespace
}  // namespace winnow::compress::damage_test

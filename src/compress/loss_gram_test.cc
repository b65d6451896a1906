// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What sets of experts are said to lose together against running the layer without them.
#include "compress/loss_gram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "compress/expert_replacement.h"
#include "compress/expert_sums.h"
#include "compress/joint_constants.h"
#include "compress/layer_of_experts.h"

namespace winnow::compress::loss_gram_test {
namespace {

using Kind = LossGram::Kind;
using Loss = LossGram::Loss;
using testing::LayerOfExperts;

class Losses : public ::testing::TestWithParam<std::string> {
 protected:
  /// Of the output, per token, when these stand for experts; constants: of those that become one.
  double measured(const std::vector<Loss>& set, const std::vector<std::vector<float>>& constants) {
    std::vector<engine::ExpertSubstitute> experts(experts_);
    for (const Loss& loss : set) {
      experts[index(loss.expert)] = {loss.kind, constants[index(loss.expert)]};
    }
    return layer_.squared_change(experts) / static_cast<double>(layer_.batches().tokens);
  }
  LossGram gram() {
    return collect_losses(layer_.runner(), layer_.spec(), LayerOfExperts::kLayer, single(),
                          layer_.stream(), layer_.log());
  }
  std::vector<std::vector<float>> single() {
    std::vector<std::vector<float>> constants;
    for (const ExpertSums& sums : layer_.sums().experts) constants.push_back(best_constant(sums));
    return constants;
  }
  JointSums joint_sums(const std::vector<ExpertId>& constants, const std::vector<ExpertId>& zeros) {
    return collect_joint_sums(layer_.runner(), layer_.spec(), constants, zeros, layer_.stream(),
                              layer_.log());
  }

  LayerOfExperts layer_{GetParam()};
  std::uint32_t experts_ = layer_.spec().moe.num_experts;
};

TEST_P(Losses, ZeroingAnySetCostsItsQuadraticForm) {
  const LossGram losses = gram();
  for (std::uint32_t bits = 0; bits < 1U << experts_; ++bits) {
    std::vector<Loss> set;
    for (std::uint32_t e = 0; e < experts_; ++e) {
      if ((bits >> e & 1U) != 0) set.push_back({ExpertId{e}, Kind::kZero});
    }
    const double expected = losses.squared_change(set);
    // The engine adds in f32.
    ASSERT_NEAR(measured(set, single()), expected, 3e-4 * expected + 1e-9) << bits;
  }
}

TEST_P(Losses, SoDoSetsOfDifferentReplacements) {
  const LossGram losses = gram();
  Rng rng(5);
  for (int draw = 0; draw < 60; ++draw) {
    std::vector<Loss> set;
    for (std::uint32_t e = 0; e < experts_; ++e) {
      const Kind kinds[] = {Kind::kOwn, Kind::kZero, Kind::kIdentity, Kind::kConstant};
      const Kind kind = kinds[rng.below(4)];
      if (kind != Kind::kOwn) set.push_back({ExpertId{e}, kind});
    }
    const double expected = losses.squared_change(set);
    ASSERT_NEAR(measured(set, single()), expected, 3e-4 * expected + 1e-9) << draw;
  }
}

TEST_P(Losses, ConstantsFittedTogetherChangeTheOutputAsTheySayAndNeverMoreThanSingleOnes) {
  const std::vector<ExpertId> set = {ExpertId{0}, ExpertId{2}, ExpertId{3}};
  const std::vector<ExpertId> zeros = {ExpertId{1}, ExpertId{5}};
  const JointSums sums = joint_sums(set, zeros);
  std::vector<std::vector<float>> alone;
  for (const ExpertId expert : set) alone.push_back(single()[index(expert)]);
  const auto joint = joint_constants(sums, alone, 0);
  const auto change_of = [&](const std::vector<std::vector<float>>& constants) {
    std::vector<Loss> losses;
    std::vector<std::vector<float>> values(experts_);
    for (std::size_t p = 0; p < set.size(); ++p) {
      losses.push_back({set[p], Kind::kConstant});
      values[index(set[p])] = constants[p];
    }
    for (const ExpertId expert : zeros) losses.push_back({expert, Kind::kZero});
    const double expected = squared_change(sums, constants);
    EXPECT_NEAR(measured(losses, values) * static_cast<double>(layer_.batches().tokens), expected,
                3e-4 * expected);
    return expected;
  };
  const double together = change_of(joint);
  EXPECT_LT(together, change_of(alone));
  EXPECT_LE(together, change_of(joint_constants(sums, alone, 0.01)) * (1 + 1e-6));
  EXPECT_LE(change_of(joint_constants(sums, alone, 0.01)), change_of(alone));
  // A stationary point: no step in any entry lowers the change, which is quadratic.
  Rng rng(1);
  for (int draw = 0; draw < 50; ++draw) {
    auto moved = joint;
    float& entry = moved[rng.below(moved.size())][rng.below(layer_.spec().hidden_size)];
    entry += draw % 2 == 0 ? 0.01F : -0.01F;
    EXPECT_GT(squared_change(sums, moved), together);
  }
}

TEST_P(Losses, OneConstantAloneIsTheMeanOfItsExpert) {
  for (std::uint32_t e = 0; e < experts_; ++e) {
    const JointSums sums = joint_sums({ExpertId{e}}, {});
    const std::vector<std::vector<float>> zero = {std::vector<float>(layer_.spec().hidden_size)};
    const auto joint = joint_constants(sums, zero, 0);
    // Router weights of one pass have one expert more beside them: f32 roundings of 6e-8 each, of
    // outputs that cancel in the mean.
    const std::vector<float> mean = single()[e];
    const float largest = std::fabs(*std::max_element(
        mean.begin(), mean.end(), [](float a, float b) { return std::fabs(a) < std::fabs(b); }));
    for (std::size_t c = 0; c < mean.size(); ++c) {
      ASSERT_NEAR(joint[0][c], mean[c], 1e-5 * largest);
    }
  }
}

TEST_P(Losses, ExpertsThatNoTokenGoesToKeepTheirConstants) {
  JointSums sums = joint_sums({ExpertId{0}, ExpertId{1}}, {});
  for (std::size_t p = 0; p < 2; ++p) sums.weights.row(1)[p] = sums.weights.row(p)[1] = 0;
  const std::size_t hidden = layer_.spec().hidden_size;
  const std::vector<std::vector<float>> single = {std::vector<float>(hidden, 1),
                                                  std::vector<float>(hidden, 2)};
  const auto joint = joint_constants(sums, single);
  EXPECT_EQ(joint[1], single[1]);
  EXPECT_NE(joint[0], single[0]);
}

TEST_P(Losses, NeitherBatchesNorThreadsChangeABit) {
  LayerOfExperts other(GetParam(), 3, 1000);
  const LossGram one = gram();
  const LossGram two = collect_losses(other.runner(), other.spec(), LayerOfExperts::kLayer,
                                      single(), other.stream(), other.log());
  for (std::uint32_t a = 0; a < experts_; ++a) {
    for (std::uint32_t b = 0; b < experts_; ++b) {
      const Loss of_a{ExpertId{a}, Kind::kConstant}, of_b{ExpertId{b}, Kind::kIdentity};
      EXPECT_EQ(one.at(of_a, of_b), two.at(of_a, of_b));
    }
  }
  const std::vector<ExpertId> set = {ExpertId{1}, ExpertId{4}};
  const JointSums first = joint_sums(set, {});
  const JointSums second =
      collect_joint_sums(other.runner(), other.spec(), set, {}, other.stream(), other.log());
  EXPECT_TRUE(std::equal(first.outputs.flat().begin(), first.outputs.flat().end(),
                         second.outputs.flat().begin()));
}

INSTANTIATE_TEST_SUITE_P(Models, Losses, ::testing::Values("plain", "not-renormalised"));

}  // namespace
}  // namespace winnow::compress::loss_gram_test

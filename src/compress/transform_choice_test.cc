// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/transform_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "compress/quantizer_methods.h"
#include "compress/quantizer_test_support.h"
#include "compress/test_workers.h"

namespace winnow::compress::transform_choice_test {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): the helpers beside this file
using model::Role;

/// 4 heads on 2 of 16; 2 experts of 64 inner channels behind a hidden size of 64; then dense.
model::ModelSpec small_spec() {
  model::ModelSpec spec;
  spec.architecture = "small";
  spec.hidden_size = 64;
  spec.intermediate_size = 64;
  spec.num_hidden_layers = 2;
  spec.num_attention_heads = 4;
  spec.num_key_value_heads = 2;
  spec.head_dim = 16;
  spec.moe.num_experts = 2;
  spec.moe.top_k = 1;
  spec.moe.moe_intermediate_size = 64;
  spec.moe_layers = {true, false};
  return spec;
}

class TransformChoice : public ::testing::TestWithParam<std::uint32_t> {
 protected:
  LayerSource source() {
    return {spec,
            layer,
            [this](Role role, ExpertId expert) {
              const auto shape = *model::expected_shape(spec, role, layer);
              auto weights = random_matrix(10 * static_cast<std::uint64_t>(role) + index(expert),
                                           shape[0], shape[1]);
              if (role != Role::kAttentionOutput) return weights;
              for (std::size_t r = 0; r < weights.rows(); ++r) {
                for (std::size_t c = 5; c < weights.cols(); c += 16) weights.row(r)[c] *= stand_out;
              }
              return weights;
            },
            [this](Role, ExpertId) { return known ? &hessian : nullptr; },
            [this](Role, ExpertId) { return &held_out; },
            [this](Role) -> const quant::Codec& { return *codec; }};
  }
  static TransformWishes everything() {
    TransformWishes wishes;
    wishes.inner_order = true;
    wishes.inner_scales = wishes.value_scales = ScaleFamily::kAwq;
    wishes.attention_input = wishes.ffn_input = ScaleFamily::kAwq;
    wishes.value_rotation = true;
    return wishes;
  }
  LayerTransformChoice choose(const TransformWishes& wishes) {
    return choose_layer_transform(source(), wishes, rtn, pool);
  }
  /// The held-out loss of a whole matrix after the change, as it will be quantised.
  double loss_after(const LayerTransform& transform, Role role, engine::Site site,
                    ExpertId expert) {
    auto weights = source().weights(role, expert);
    transform.apply(role, expert, weights.view());
    const Hessian changed = transform.apply_to_hessian(site, expert, hessian);
    const Hessian judge = transform.apply_to_hessian(site, expert, held_out);
    return held_out_loss({weights.view(), codec, &changed, &judge}, rtn, pool);
  }

  model::ModelSpec spec = small_spec();
  LayerId layer{GetParam()};
  const quant::Codec* codec = quant::find_codec("Q4_0");
  HessianQuantizerOptions rtn = find_quantizer_method("rtn")->options;
  testing::OwnWorkers pool{2};
  Hessian hessian = correlated_hessian(2, 800, 64);
  Hessian held_out = correlated_hessian(3, 400, 64);
  bool known = true;
  float stand_out = 1;  // factor of one column of o in each head
};
INSTANTIATE_TEST_SUITE_P(MoeAndDense, TransformChoice, ::testing::Values(0U, 1U));

TEST_P(TransformChoice, LosesLessThanBeforeWhereverItChangesSomething) {
  const auto [transform, gains] = choose(everything());
  const LayerTransform none(spec, layer);
  const bool moe = spec.is_moe_layer(layer);
  const Role down = moe ? Role::kExpertDownProj : Role::kDownProj;
  const auto inner = moe ? engine::Site::kExpertInner : engine::Site::kFfnInner;
  for (std::uint32_t e = 0; e < (moe ? 2 : 1); ++e) {
    EXPECT_FALSE(transform.is_identity(down, ExpertId{e}));
    EXPECT_LT(loss_after(transform, down, inner, ExpertId{e}),
              0.99 * loss_after(none, down, inner, ExpertId{e}));
  }
  EXPECT_FALSE(transform.is_identity(Role::kAttentionOutput));
  EXPECT_LT(loss_after(transform, Role::kAttentionOutput, engine::Site::kAttentionInner, {}),
            0.99 * loss_after(none, Role::kAttentionOutput, engine::Site::kAttentionInner, {}));
  EXPECT_FALSE(transform.is_identity(Role::kAttentionNorm));
  EXPECT_FALSE(transform.is_identity(Role::kFfnNorm));
}

TEST_P(TransformChoice, ReportsWhatItTriedAndNeverALossThatRose) {
  const auto [transform, gains] = choose(everything());
  std::map<TransformKind, int> tried;
  for (const TransformGain& gain : gains) {
    ++tried[gain.kind];
    EXPECT_GT(gain.loss_before, 0);
    EXPECT_TRUE(gain.loss_after == gain.loss_before || gain.loss_after < 0.99 * gain.loss_before);
  }
  const int inner = spec.is_moe_layer(layer) ? 2 : 1;
  EXPECT_EQ(tried[TransformKind::kInnerOrder], inner);
  EXPECT_EQ(tried[TransformKind::kInnerScales], inner);
  EXPECT_EQ(tried[TransformKind::kValueScales], 1);
  EXPECT_EQ(tried[TransformKind::kValueRotation], 1);
  EXPECT_EQ(tried[TransformKind::kAttentionInput], 1);
  EXPECT_EQ(tried[TransformKind::kFfnInput], 1);
}

TEST_P(TransformChoice, ChangesNothingThatDoesNotPay) {
  hessian = identity_hessian(64);
  held_out = identity_hessian(64);
  TransformWishes wishes = everything();
  wishes.least_gain = 0.2;
  const auto [transform, gains] = choose(wishes);
  for (const auto& role : model::all_roles()) {
    if (!model::expected_shape(spec, role.role, layer) || !role.per_layer) continue;
    EXPECT_TRUE(transform.is_identity(role.role)) << role.name;
  }
  for (const TransformGain& gain : gains) EXPECT_EQ(gain.loss_after, gain.loss_before);
}

TEST_P(TransformChoice, RotatesValuesWhereOneChannelOfEachHeadStandsOut) {
  // Columns 16 apart are 30 times the others: scales of blocks of 32 are theirs.
  stand_out = 30;
  hessian = identity_hessian(64);
  held_out = identity_hessian(64);
  TransformWishes wishes;
  wishes.value_rotation = true;
  wishes.least_gain = 0.05;  // random weights gain or lose a percent or two by chance
  const auto [transform, gains] = choose(wishes);
  ASSERT_EQ(gains.size(), 1U);
  EXPECT_LT(gains[0].loss_after, 0.8 * gains[0].loss_before);
  EXPECT_FALSE(transform.is_identity(Role::kValueProj));
  stand_out = 1;
  const auto even = choose(wishes);
  EXPECT_TRUE(even.transform.is_identity(Role::kValueProj));
  EXPECT_EQ(even.gains[0].loss_after, even.gains[0].loss_before);
}

TEST_P(TransformChoice, LeavesAloneWhatNothingIsKnownOfOrNothingIsLostIn) {
  known = false;
  EXPECT_TRUE(choose(everything()).gains.empty());
  known = true;
  codec = quant::find_codec("F16");
  EXPECT_TRUE(choose(everything()).gains.empty());
}

TEST_P(TransformChoice, TriesOnlyWhatIsWishedForAndLegal) {
  EXPECT_TRUE(choose({}).gains.empty());
  spec.ffn_is_linear_in_up = false;
  spec.attention_is_linear_in_values = false;
  spec.norm_weights_are_factors = false;
  for (const TransformGain& gain : choose(everything()).gains) {
    EXPECT_EQ(gain.kind, TransformKind::kInnerOrder);
  }
}

TEST_P(TransformChoice, DoesNotDependOnTheThreads) {
  const auto both = choose(everything());
  testing::OwnWorkers one(1);
  const auto alone = choose_layer_transform(source(), everything(), rtn, one);
  ASSERT_EQ(both.gains.size(), alone.gains.size());
  for (std::size_t i = 0; i < both.gains.size(); ++i) {
    EXPECT_EQ(both.gains[i].loss_after, alone.gains[i].loss_after);
  }
}

TEST(InnerOrders, FallByShareOfTheOutputAndByLargestWeight) {
  tensor::Matrix<float> down(2, 4);
  const std::vector<float> weights = {1, -3, 0.5F, 2, 1, 0, 0.5F, 2};
  std::copy(weights.begin(), weights.end(), down.flat().begin());
  tensor::Matrix<float> x(1, 4);
  const std::vector<float> inputs = {3, 1, 10, 0};
  std::copy(inputs.begin(), inputs.end(), x.flat().begin());
  Hessian hessian(4);
  testing::OwnWorkers pool(1);
  hessian.add(x.view(), {}, pool);
  const auto orders = inner_orders(down.view(), hessian);
  ASSERT_EQ(orders.size(), 2U);
  EXPECT_THAT(orders[0], ::testing::ElementsAre(2, 0, 1, 3));  // 50, 18, 9, 0
  EXPECT_THAT(orders[1], ::testing::ElementsAre(1, 3, 0, 2));  // 3, 2, 1, 0.5
}

}  // namespace
}  // namespace winnow::compress::transform_choice_test

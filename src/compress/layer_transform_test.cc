// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/layer_transform.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "compress/quantizer_test_support.h"
#include "compress/transform_test_support.h"

namespace winnow::compress::layer_transform_test {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): the helpers beside this file
using engine::Site;
using model::Role;

/// 4 query heads on 2 value heads of 8; 3 experts of 32 inner channels; a dense layer behind.
model::ModelSpec small_spec() {
  model::ModelSpec spec;
  spec.architecture = "small";
  spec.vocab_size = 10;
  spec.hidden_size = 24;
  spec.intermediate_size = 40;
  spec.num_hidden_layers = 2;
  spec.num_attention_heads = 4;
  spec.num_key_value_heads = 2;
  spec.head_dim = 8;
  spec.attention_bias = true;
  spec.moe.num_experts = 3;
  spec.moe.top_k = 2;
  spec.moe.moe_intermediate_size = 32;
  spec.moe_layers = {true, false};
  return spec;
}

/// Those that are exact with powers of two, and that may follow each other.
const std::vector<TransformKind> kKinds = {
    TransformKind::kInnerOrder, TransformKind::kInnerScales, TransformKind::kValueScales,
    TransformKind::kAttentionInput, TransformKind::kFfnInput};

LayerTransform everything(const model::ModelSpec& spec, LayerId layer, std::uint64_t seed,
                          ScaleStyle style) {
  LayerTransform transform(spec, layer);
  Rng rng(seed);
  for (const TransformKind kind : kKinds) set_random(transform, spec, layer, kind, style, rng);
  return transform;
}

/// Visits every matrix of the layer that the spec asks for, with random weights.
template <typename Visit>
void for_each_matrix(const model::ModelSpec& spec, LayerId layer, Visit visit) {
  std::uint64_t seed = 1;
  for (const auto& role : model::all_roles()) {
    const auto shape = model::expected_shape(spec, role.role, layer);
    if (!role.per_layer || !shape || shape->rank() != 2) continue;
    visit(role.role, random_matrix(seed++, (*shape)[0], (*shape)[1]));
  }
}

double quadratic(const tensor::Matrix<float>& errors, const Hessian& hessian) {
  double sum = 0;
  for (std::size_t r = 0; r < errors.rows(); ++r) {
    const auto row = errors.row(r);
    for (std::size_t i = 0; i < row.size(); ++i) {
      for (std::size_t j = 0; j < row.size(); ++j) sum += row[i] * hessian.at(i, j) * row[j];
    }
  }
  return sum;
}

TEST(LayerTransform, ChangesNothingWhenNew) {
  const auto spec = small_spec();
  for (const LayerId layer : {LayerId{0}, LayerId{1}}) {
    const LayerTransform transform(spec, layer);
    for_each_matrix(spec, layer, [&](Role role, tensor::Matrix<float> weights) {
      const auto before = weights.clone();
      EXPECT_TRUE(transform.is_identity(role));
      transform.apply(role, {}, weights.view());
      EXPECT_THAT(weights.flat(), ::testing::ElementsAreArray(before.flat()));
    });
  }
}

TEST(LayerTransform, SaysOfEveryTensorWhetherItChanges) {
  using enum TransformKind;
  const auto spec = small_spec();
  const std::vector<std::pair<TransformKind, std::vector<Role>>> expected = {
      {kInnerOrder, {Role::kExpertGateProj, Role::kExpertUpProj, Role::kExpertDownProj}},
      {kInnerScales, {Role::kExpertUpProj, Role::kExpertDownProj}},
      {kValueScales, {Role::kValueProj, Role::kValueBias, Role::kAttentionOutput}},
      {kValueRotation, {Role::kValueProj, Role::kValueBias, Role::kAttentionOutput}},
      {kAttentionInput, {Role::kAttentionNorm, Role::kQueryProj, Role::kKeyProj, Role::kValueProj}},
      {kFfnInput, {Role::kFfnNorm, Role::kRouter, Role::kExpertGateProj, Role::kExpertUpProj}}};
  for (const auto& [kind, changed] : expected) {
    LayerTransform transform(spec, LayerId{0});
    Rng rng(1);
    set_random(transform, spec, LayerId{0}, kind, ScaleStyle::kAny, rng);
    for (const auto& role : model::all_roles()) {
      if (!role.per_layer || !model::expected_shape(spec, role.role, LayerId{0})) continue;
      const bool listed = std::find(changed.begin(), changed.end(), role.role) != changed.end();
      EXPECT_EQ(transform.is_identity(role.role), !listed) << role.name;
    }
  }
}

TEST(LayerTransform, ChangesOnlyTheExpertItWasSetFor) {
  LayerTransform transform(small_spec(), LayerId{0});
  transform.set_inner_scales(ExpertId{1}, std::vector<float>(32, 2.0F));
  EXPECT_TRUE(transform.is_identity(Role::kExpertUpProj, ExpertId{0}));
  EXPECT_FALSE(transform.is_identity(Role::kExpertUpProj, ExpertId{1}));
  EXPECT_TRUE(transform.is_identity(Role::kExpertUpProj, ExpertId{2}));
}

TEST(LayerTransform, MovesRowsOfGateAndUpWithColumnsOfDown) {
  const auto spec = small_spec();
  LayerTransform transform(spec, LayerId{1});
  std::vector<std::uint32_t> order(40);
  for (std::uint32_t i = 0; i < 40; ++i) order[i] = (i * 7 + 3) % 40;
  std::vector<float> scales(40);
  for (std::size_t i = 0; i < 40; ++i) scales[i] = 0.5F + 0.1F * static_cast<float>(i);
  transform.set_inner_order({}, order);
  transform.set_inner_scales({}, scales);
  for_each_matrix(spec, LayerId{1}, [&](Role role, tensor::Matrix<float> weights) {
    const auto before = weights.clone();
    transform.apply(role, {}, weights.view());
    for (std::size_t r = 0; r < weights.rows(); ++r) {
      for (std::size_t c = 0; c < weights.cols(); ++c) {
        float expected = before.row(r)[c];
        if (role == Role::kGateProj) expected = before.row(order[r])[c];
        if (role == Role::kUpProj) expected = before.row(order[r])[c] / scales[r];
        if (role == Role::kDownProj) expected = before.row(r)[order[c]] * scales[c];
        ASSERT_EQ(weights.row(r)[c], expected) << model::traits(role).name;
      }
    }
  });
}

TEST(LayerTransform, GivesEveryQueryHeadTheScalesOfItsValueHead) {
  const auto spec = small_spec();
  LayerTransform transform(spec, LayerId{0});
  std::vector<float> scales(16);
  for (std::size_t i = 0; i < 16; ++i) scales[i] = static_cast<float>(i + 1);
  transform.set_value_scales(scales);
  tensor::Matrix<float> o(24, 32);
  std::fill(o.flat().begin(), o.flat().end(), 1.0F);
  transform.apply(Role::kAttentionOutput, {}, o.view());
  for (std::size_t c = 0; c < 32; ++c) {
    const std::size_t value_head = c / 8 / 2;
    EXPECT_EQ(o.row(5)[c], scales[value_head * 8 + c % 8]);
  }
  std::vector<float> bias(16, 1.0F);
  transform.apply_to_vector(Role::kValueBias, bias);
  for (std::size_t i = 0; i < 16; ++i) EXPECT_EQ(bias[i], 1.0F / scales[i]);
}

/// Only scales of values and their rotation.
LayerTransform rotated_values(const model::ModelSpec& spec) {
  LayerTransform transform(spec, LayerId{0});
  Rng rng(4);
  set_random(transform, spec, LayerId{0}, TransformKind::kValueScales, ScaleStyle::kAny, rng);
  transform.set_value_rotation();
  return transform;
}

TEST(LayerTransform, TurnsEachValueHeadAndUndoesItInEveryQueryHead) {
  const auto spec = small_spec();
  const LayerTransform transform = rotated_values(spec);
  auto v = random_matrix(1, 16, 24);
  auto o = random_matrix(2, 24, 32);
  const auto through = [&] {
    // [24, 24] of each query head: what o's columns of it make of its value head's rows of v.
    std::vector<double> result;
    for (std::size_t head = 0; head < 4; ++head) {
      for (std::size_t r = 0; r < 24; ++r) {
        for (std::size_t c = 0; c < 24; ++c) {
          double sum = 0;
          for (std::size_t d = 0; d < 8; ++d) {
            sum += double{o.row(r)[head * 8 + d]} * v.row(head / 2 * 8 + d)[c];
          }
          result.push_back(sum);
        }
      }
    }
    return result;
  };
  const auto before = through();
  const auto old = v.clone();
  transform.apply(Role::kValueProj, {}, v.view());
  transform.apply(Role::kAttentionOutput, {}, o.view());
  EXPECT_NE(v.row(3)[0], old.row(3)[0]);
  const auto after = through();
  // Sums of 8 products of about 1, whose factors went through five roundings.
  for (std::size_t i = 0; i < before.size(); ++i) EXPECT_NEAR(after[i], before[i], 1e-5) << i;
}

TEST(LayerTransform, TurnsTheBiasOfTheValuesWithThem) {
  const auto spec = small_spec();
  const LayerTransform transform = rotated_values(spec);
  // As a matrix whose every column is the bias.
  auto v = random_matrix(1, 16, 24);
  std::vector<float> bias(16);
  for (std::size_t r = 0; r < 16; ++r) {
    bias[r] = v.row(r)[0];
    std::fill(v.row(r).begin(), v.row(r).end(), bias[r]);
  }
  transform.apply(Role::kValueProj, {}, v.view());
  transform.apply_to_vector(Role::kValueBias, bias);
  for (std::size_t r = 0; r < 16; ++r) EXPECT_EQ(bias[r], v.row(r)[5]);
}

TEST(LayerTransform, KeepsWhatAChangeCostsWhenValuesAreRotated) {
  const auto spec = small_spec();
  const LayerTransform transform = rotated_values(spec);
  auto errors = random_matrix(5, 24, 32);
  const Hessian hessian = correlated_hessian(5, 100, 32);
  const double before = quadratic(errors, hessian);
  auto rows = errors.clone();
  transform.apply(Role::kAttentionOutput, {}, errors.view());
  const Hessian after = transform.apply_to_hessian(Site::kAttentionInner, {}, hessian);
  // The errors are rounded to f32 in each of four steps.
  EXPECT_NEAR(quadratic(errors, after), before, 1e-6 * before);
  transform.apply_to_rows(Role::kAttentionOutput, {}, rows.view());
  EXPECT_THAT(rows.flat(), ::testing::ElementsAreArray(errors.flat()));
}

TEST(LayerTransform, TwoRotationsAreNone) {
  const auto spec = small_spec();
  LayerTransform turned(spec, LayerId{0});
  turned.set_value_rotation();
  LayerTransform both = turned;
  both.append(turned);
  EXPECT_TRUE(both.is_identity(Role::kValueProj));
  EXPECT_TRUE(both.is_identity(Role::kValueBias));
  both.append(turned);
  EXPECT_FALSE(both.is_identity(Role::kAttentionOutput));
  EXPECT_THROW(both.append(rotated_values(spec)), Error);  // scales behind a rotation
}

TEST(LayerTransform, ReadsTheRecordOfARotation) {
  const auto spec = small_spec();
  const LayerTransform transform = rotated_values(spec);
  LayerTransform copy(spec, LayerId{0});
  copy.read(transform.to_json());
  EXPECT_EQ(copy.to_json(), transform.to_json());
  EXPECT_FALSE(copy.is_identity(Role::kValueBias));
}

// A change dW of a matrix becomes the transformed dW, and costs under the transformed Hessian what
// it cost before. Powers of two: every product is exact in f32, so that only f64 sums differ.
TEST(LayerTransform, KeepsWhatAChangeOfTheWeightsCosts) {
  const auto spec = small_spec();
  for (const LayerId layer : {LayerId{0}, LayerId{1}}) {
    const auto transform = everything(spec, layer, 3, ScaleStyle::kPowersOfTwo);
    for_each_matrix(spec, layer, [&](Role role, tensor::Matrix<float> errors) {
      // Rows that are scaled belong to the outputs, whose cost is measured elsewhere.
      if (role == Role::kValueProj || role == Role::kUpProj || role == Role::kExpertUpProj) return;
      const Site site = role == Role::kAttentionOutput                       ? Site::kAttentionInner
                        : role == Role::kDownProj                            ? Site::kFfnInner
                        : role == Role::kExpertDownProj                      ? Site::kExpertInner
                        : role == Role::kExpertGateProj                      ? Site::kExpertInput
                        : role == Role::kQueryProj || role == Role::kKeyProj ? Site::kAttentionInput
                                                                             : Site::kFfnInput;
      const Hessian hessian = correlated_hessian(5, 100, errors.cols());
      const double before = quadratic(errors, hessian);
      const ExpertId expert{1};
      const Hessian after =
          transform.apply_to_hessian(site, layer == LayerId{0} ? expert : ExpertId{}, hessian);
      transform.apply(role, layer == LayerId{0} ? expert : ExpertId{}, errors.view());
      EXPECT_NEAR(quadratic(errors, after), before, 1e-9 * before) << model::traits(role).name;
      EXPECT_EQ(after.tokens(), hessian.tokens());
    });
  }
}

TEST(LayerTransform, AppendedHasTheEffectOfBothInTurn) {
  const auto spec = small_spec();
  for (const LayerId layer : {LayerId{0}, LayerId{1}}) {
    const auto first = everything(spec, layer, 7, ScaleStyle::kPowersOfTwo);
    const auto second = everything(spec, layer, 8, ScaleStyle::kPowersOfTwo);
    LayerTransform both = first;
    both.append(second);
    for_each_matrix(spec, layer, [&](Role role, tensor::Matrix<float> in_turn) {
      auto at_once = in_turn.clone();
      first.apply(role, {}, in_turn.view());
      second.apply(role, {}, in_turn.view());
      both.apply(role, {}, at_once.view());
      EXPECT_THAT(at_once.flat(), ::testing::ElementsAreArray(in_turn.flat()))
          << model::traits(role).name;
    });
    const Hessian hessian = correlated_hessian(5, 100, 32);
    const ExpertId expert{0};
    if (layer != LayerId{0}) continue;
    const Hessian in_turn = second.apply_to_hessian(
        Site::kExpertInner, expert, first.apply_to_hessian(Site::kExpertInner, expert, hessian));
    const Hessian at_once = both.apply_to_hessian(Site::kExpertInner, expert, hessian);
    for (std::size_t i = 0; i < 32; ++i) {
      for (std::size_t j = 0; j <= i; ++j) EXPECT_EQ(at_once.at(i, j), in_turn.at(i, j));
    }
  }
}

TEST(LayerTransform, AppendedToNothingOrByNothingStaysWhatItIs) {
  const auto spec = small_spec();
  const auto transform = everything(spec, LayerId{0}, 7, ScaleStyle::kAny);
  LayerTransform before(spec, LayerId{0});
  before.append(transform);
  LayerTransform after = transform;
  after.append(LayerTransform(spec, LayerId{0}));
  for_each_matrix(spec, LayerId{0}, [&](Role role, tensor::Matrix<float> weights) {
    auto left = weights.clone();
    auto right = weights.clone();
    transform.apply(role, {}, weights.view());
    before.apply(role, {}, left.view());
    after.apply(role, {}, right.view());
    EXPECT_THAT(left.flat(), ::testing::ElementsAreArray(weights.flat()));
    EXPECT_THAT(right.flat(), ::testing::ElementsAreArray(weights.flat()));
  });
}

TEST(LayerTransform, RefusesWhatTheModelDoesNotLetThrough) {
  const auto refusal = [](auto change, TransformKind kind) {
    model::ModelSpec spec = small_spec();
    EXPECT_EQ(transform_refusal(spec, kind), "");
    change(spec);
    EXPECT_NE(transform_refusal(spec, kind), "");
    LayerTransform transform(spec, LayerId{0});
    Rng rng(1);
    return model::testing::error_of(
        [&] { set_random(transform, spec, LayerId{0}, kind, ScaleStyle::kAny, rng); });
  };
  const Error up =
      refusal([](auto& spec) { spec.ffn_is_linear_in_up = false; }, TransformKind::kInnerScales);
  EXPECT_EQ(up.code(), ErrorCode::kUsage);
  EXPECT_THAT(up.what(), ::testing::HasSubstr("not linear in the up projection"));
  const Error value = refusal([](auto& spec) { spec.attention_is_linear_in_values = false; },
                              TransformKind::kValueScales);
  EXPECT_THAT(value.what(), ::testing::HasSubstr("normed or gated"));
  const Error rotation = refusal([](auto& spec) { spec.attention_is_linear_in_values = false; },
                                 TransformKind::kValueRotation);
  EXPECT_EQ(rotation.code(), ErrorCode::kUsage);
  EXPECT_THAT(rotation.what(), ::testing::HasSubstr("no rotation passes"));
  for (const TransformKind kind : {TransformKind::kAttentionInput, TransformKind::kFfnInput}) {
    const Error norm = refusal([](auto& spec) { spec.norm_weights_are_factors = false; }, kind);
    EXPECT_THAT(norm.what(), ::testing::HasSubstr("1 + w"));
  }
  EXPECT_EQ(transform_refusal(small_spec(), TransformKind::kInnerOrder), "");
}

TEST(LayerTransform, RefusesScalesThatWouldLoseTheWeights) {
  LayerTransform transform(small_spec(), LayerId{0});
  for (const float bad : {0.0F, -1.0F, 0x1p61F, 0x1p-61F, INFINITY, NAN}) {
    std::vector<float> scales(24, 1.0F);
    scales[3] = bad;
    const Error error = model::testing::error_of([&] { transform.set_ffn_input_scales(scales); });
    EXPECT_EQ(error.code(), ErrorCode::kBadData) << bad;
    EXPECT_THAT(error.what(), ::testing::HasSubstr("channel 3"));
    EXPECT_TRUE(transform.is_identity(Role::kFfnNorm));
  }
}

TEST(LayerTransform, TakesOnlyPermutationsAsOrders) {
  LayerTransform transform(small_spec(), LayerId{0});
  std::vector<std::uint32_t> order(32);
  std::iota(order.begin(), order.end(), 0U);
  order[4] = 5;
  EXPECT_THROW(transform.set_inner_order(ExpertId{0}, order), Error);
  order[4] = 32;
  EXPECT_THROW(transform.set_inner_order(ExpertId{0}, order), Error);
  order.pop_back();
  EXPECT_THROW(transform.set_inner_order(ExpertId{0}, order), Error);
}

}  // namespace
}  // namespace winnow::compress::layer_transform_test

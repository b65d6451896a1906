// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "model/spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/roles.h"
#include "model/test_models.h"

namespace winnow::model::spec_test {
namespace {

using ::testing::AllOf;
using testing::error_of;
using ::testing::HasSubstr;

ModelSpec sound_spec() { return Checkpoint::open(testing::tiny_model("plain")).spec(); }

void expect_refused(const ModelSpec& spec, const char* key) {
  const Error error = error_of([&] { check_spec(spec, "m/config.json"); });
  EXPECT_EQ(error.code(), ErrorCode::kBadData) << key;
  EXPECT_THAT(error.message(), AllOf(HasSubstr("m/config.json"), HasSubstr(key)));
}

TEST(CheckSpec, AcceptsASoundSpec) { EXPECT_NO_THROW(check_spec(sound_spec(), "m")); }

TEST(CheckSpec, RefusesSizesThatAreZero) {
  for (const auto& [key, member] :
       {std::pair{"hidden_size", &ModelSpec::hidden_size},
        std::pair{"vocab_size", &ModelSpec::vocab_size},
        std::pair{"num_attention_heads", &ModelSpec::num_attention_heads},
        std::pair{"num_key_value_heads", &ModelSpec::num_key_value_heads},
        std::pair{"head_dim", &ModelSpec::head_dim},
        std::pair{"max_position_embeddings", &ModelSpec::max_position_embeddings}}) {
    ModelSpec spec = sound_spec();
    spec.*member = 0;
    expect_refused(spec, key);
  }
}

TEST(CheckSpec, RefusesSizesWhoseProductsWouldOverflow) {
  for (const auto& [key, member] : {std::pair{"hidden_size", &ModelSpec::hidden_size},
                                    std::pair{"vocab_size", &ModelSpec::vocab_size},
                                    std::pair{"head_dim", &ModelSpec::head_dim}}) {
    ModelSpec spec = sound_spec();
    spec.*member = 0xffffffff;
    expect_refused(spec, key);
  }
  ModelSpec wide = sound_spec();
  wide.num_attention_heads = wide.num_key_value_heads = 65536;
  wide.head_dim = 65536;
  expect_refused(wide, "num_attention_heads * head_dim");
}

TEST(CheckSpec, RefusesMoreChoicesThanExperts) {
  ModelSpec spec = sound_spec();
  spec.moe.top_k = spec.moe.num_experts + 1;
  expect_refused(spec, "num_experts_per_tok");
}

TEST(CheckSpec, WantsAWidthForDenseLayersOnlyWhereThereAreSome) {
  ModelSpec spec = sound_spec();
  spec.intermediate_size = 0;
  EXPECT_NO_THROW(check_spec(spec, "m"));
  spec.moe_layers[0] = false;
  expect_refused(spec, "intermediate_size");
}

TEST(CheckSpec, RefusesAnEpsilonOrAThetaThatIsNotANumber) {
  ModelSpec spec = sound_spec();
  spec.rms_norm_eps = std::numeric_limits<float>::quiet_NaN();
  expect_refused(spec, "rms_norm_eps");
  spec = sound_spec();
  spec.rope_theta = std::numeric_limits<double>::quiet_NaN();
  expect_refused(spec, "rope_theta");
}

TEST(DescribeRouter, SaysHowManyExpertsAreChosenAndHowTheyAreWeighted) {
  ModelSpec spec = sound_spec();
  EXPECT_EQ(describe_router(spec), "softmax over 8 experts, top 2, weights renormalised to sum 1");
  spec.moe.renormalize_top_k = false;
  EXPECT_THAT(describe_router(spec), HasSubstr("not renormalised"));
  spec.moe_layers = {false, false};
  EXPECT_THAT(describe_router(spec), HasSubstr("dense"));
}

TEST(Roles, StandInTheTableInTheirOrder) {
  ASSERT_EQ(all_roles().size(), kNumRoles);
  for (std::size_t i = 0; i < kNumRoles; ++i) {
    EXPECT_EQ(static_cast<std::size_t>(all_roles()[i].role), i);
    EXPECT_EQ(traits(all_roles()[i].role).name, all_roles()[i].name);
  }
}

TEST(Roles, ExpandEveryPlaceholderOfAPattern) {
  EXPECT_EQ(expand_pattern("a.{layer}.b.{expert}.c", LayerId{12}, ExpertId{7}), "a.12.b.7.c");
  EXPECT_EQ(expand_pattern("plain", LayerId{12}), "plain");
}

}  // namespace
}  // namespace winnow::model::spec_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/architecture.h"
#include "model/test_models.h"

namespace winnow::model::config_test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

HfConfig config(const char* text) { return {parse_json(text, "c"), "m/config.json"}; }

template <typename Body>
void expect_bad(Body body, const char* word) {
  const Error error = error_of(body);
  EXPECT_EQ(error.code(), ErrorCode::kBadData);
  EXPECT_THAT(error.message(),
              AllOf(HasSubstr("m/config.json"), HasSubstr("'k'"), HasSubstr(word)));
}

TEST(HfConfig, ReadsIntegersUpToTheirLimit) {
  EXPECT_EQ(config(R"({"k": 4294967295})").integer("k"), 4294967295U);
  EXPECT_EQ(config("{}").integer_or("k", 3), 3U);
  EXPECT_EQ(config(R"({"k": null})").integer_or("k", 3), 3U);
}

TEST(HfConfig, RefusesWhatIsNoInteger) {
  for (const char* text : {R"({"k": 4294967296})", R"({"k": -1})", R"({"k": 1.0})", R"({"k": "1"})",
                           R"({"k": [1]})", R"({"k": true})"}) {
    expect_bad([&] { config(text).integer("k"); }, "integer");
    expect_bad([&] { config(text).integer_or("k", 1); }, "integer");
  }
  expect_bad([] { config("{}").integer("k"); }, "missing");
}

TEST(HfConfig, RefusesNumbersThatAreNone) {
  EXPECT_EQ(config(R"({"k": 2})").number("k"), 2.0);
  expect_bad([] { config(R"({"k": "1e-6"})").number("k"); }, "finite number");
  expect_bad([] { config(R"({"k": {}})").number_or("k", 1); }, "finite number");
}

TEST(HfConfig, ReadsListsOfLayers) {
  EXPECT_THAT(config(R"({"k": [0, 5]})").integers_or_empty("k"), ElementsAre(0, 5));
  EXPECT_THAT(config(R"({"k": null})").integers_or_empty("k"), IsEmpty());
  expect_bad([] { config(R"({"k": [0, -5]})").integers_or_empty("k"); }, "-5");
  expect_bad([] { config(R"({"k": 5})").integers_or_empty("k"); }, "list");
}

TEST(HfConfig, AcceptsOnlyTheSupportedValueOrItsAbsence) {
  EXPECT_NO_THROW(config("{}").require("k", "silu"));
  EXPECT_NO_THROW(config(R"({"k": null})").require("k", "silu"));
  EXPECT_NO_THROW(config(R"({"k": "silu"})").require("k", "silu"));
  expect_bad([] { config(R"({"k": "gelu"})").require("k", "silu"); }, "gelu");
}

TEST(HfConfig, RefusesATextThatIsNoObject) {
  const Error error = error_of([] { config("[1]"); });
  EXPECT_EQ(error.code(), ErrorCode::kBadData);
}

class ArchitectureRoundTrip : public ::testing::TestWithParam<std::string> {};

/// All fields that a configuration carries.
void expect_same_spec(const ModelSpec& a, const ModelSpec& b) {
  EXPECT_EQ(a.vocab_size, b.vocab_size);
  EXPECT_EQ(a.hidden_size, b.hidden_size);
  EXPECT_EQ(a.intermediate_size, b.intermediate_size);
  EXPECT_EQ(a.num_hidden_layers, b.num_hidden_layers);
  EXPECT_EQ(a.num_attention_heads, b.num_attention_heads);
  EXPECT_EQ(a.num_key_value_heads, b.num_key_value_heads);
  EXPECT_EQ(a.head_dim, b.head_dim);
  EXPECT_EQ(a.max_position_embeddings, b.max_position_embeddings);
  EXPECT_EQ(a.rms_norm_eps, b.rms_norm_eps);
  EXPECT_EQ(a.rope_theta, b.rope_theta);
  EXPECT_EQ(a.query_key_norm, b.query_key_norm);
  EXPECT_EQ(a.attention_bias, b.attention_bias);
  EXPECT_EQ(a.attention_output_bias, b.attention_output_bias);
  EXPECT_EQ(a.tie_word_embeddings, b.tie_word_embeddings);
  EXPECT_EQ(a.moe.num_experts, b.moe.num_experts);
  EXPECT_EQ(a.moe.top_k, b.moe.top_k);
  EXPECT_EQ(a.moe.moe_intermediate_size, b.moe.moe_intermediate_size);
  EXPECT_EQ(a.moe.renormalize_top_k, b.moe.renormalize_top_k);
  EXPECT_EQ(a.moe_layers, b.moe_layers);
}

TEST_P(ArchitectureRoundTrip, ReadsTheConfigurationItWrites) {
  const auto checkpoint = Checkpoint::open(testing::tiny_folder(GetParam()));
  Json written;
  checkpoint.architecture().write_hf(checkpoint.spec(), written);
  expect_same_spec(checkpoint.spec(),
                   checkpoint.architecture().read_hf(HfConfig(written, "config.json")));
}

INSTANTIATE_TEST_SUITE_P(Models, ArchitectureRoundTrip, ::testing::ValuesIn(testing::tiny_models()),
                         testing::test_name);

TEST(Architectures, AreFoundByBothNames) {
  for (const Architecture* architecture : all_architectures()) {
    EXPECT_EQ(find_by_hf_name(architecture->hf_name), architecture);
    EXPECT_EQ(find_by_gguf_name(architecture->gguf_name), architecture);
    EXPECT_THAT(architecture_names(), HasSubstr(std::string(architecture->hf_name)));
  }
  EXPECT_EQ(find_by_hf_name("Mystery"), nullptr);
  EXPECT_EQ(find_by_gguf_name(""), nullptr);
}

TEST(Architectures, SayWhatLlamaCppWouldLose) {
  const auto losses = [](const char* name) {
    const auto checkpoint = Checkpoint::open(testing::tiny_model(name));
    return checkpoint.architecture().lost_in_llama_cpp(checkpoint.spec());
  };
  EXPECT_THAT(losses("plain"), IsEmpty());
  EXPECT_THAT(losses("not-renormalised"), ElementsAre(HasSubstr("sum")));
  EXPECT_THAT(losses("dense-first"), ElementsAre(HasSubstr("dense")));
  EXPECT_THAT(losses("attention-bias"), ElementsAre(HasSubstr("biases")));
}

}  // namespace
}  // namespace winnow::model::config_test

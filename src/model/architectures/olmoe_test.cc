// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What is OLMoE's own: its keys, and what llama.cpp's `olmoe` cannot express. Logits and round
// trips are tested over all tiny models.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/architecture.h"
#include "model/test_models.h"

namespace winnow::model::olmoe_test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::tiny_folder;

const Architecture& olmoe() { return *find_by_gguf_name("olmoe"); }

/// The configuration of OLMoE-1B-7B (arXiv:2409.02060).
Json released_config() {
  return parse_json(R"({"attention_bias": false, "clip_qkv": null, "hidden_act": "silu",
      "hidden_size": 2048, "intermediate_size": 1024, "max_position_embeddings": 4096,
      "norm_topk_prob": false, "num_attention_heads": 16, "num_experts": 64,
      "num_experts_per_tok": 8, "num_hidden_layers": 16, "num_key_value_heads": 16,
      "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 10000.0,
      "tie_word_embeddings": false, "vocab_size": 50304})",
                    "c");
}

ModelSpec read(const Json& config) {
  ModelSpec spec = olmoe().read_hf(HfConfig(config, "m/config.json"));
  spec.architecture = olmoe().gguf_name;
  check_spec(spec, "m/config.json");
  return spec;
}

TEST(Olmoe, HasTheParametersOfTheReleasedModel) {
  const ModelSpec spec = read(released_config());
  // Embedding and output; norms, attention and router of a layer; experts.
  const std::uint64_t layer = 4 * 2048 + 4 * 2048 * 2048 + 64 * 2048;
  const std::uint64_t experts = std::uint64_t{64} * 3 * 2048 * 1024;
  EXPECT_EQ(testing::parameters_of(spec), 2 * 50304 * 2048 + 2048 + 16 * (layer + experts));
  EXPECT_EQ(testing::parameters_of(spec), 6919161856U);  // "7B" of its name
  EXPECT_EQ(describe_router(spec), "softmax over 64 experts, top 8, weights not renormalised");
}

TEST(Olmoe, NormalisesTheWholeProjectionsOfQueriesAndKeys) {
  Json config = released_config();
  config["num_key_value_heads"] = 4;
  const ModelSpec spec = read(config);
  EXPECT_EQ(expected_shape(spec, Role::kQueryNorm, LayerId{0}), (tensor::Shape{2048}));
  EXPECT_EQ(expected_shape(spec, Role::kKeyNorm, LayerId{0}), (tensor::Shape{512}));
}

TEST(Olmoe, RefusesToClipQueriesKeysAndValues) {
  Json config = released_config();
  config["clip_qkv"] = 8.0;
  const Error error = error_of([&] { read(config); });
  EXPECT_EQ(error.code(), ErrorCode::kBadData);
  EXPECT_THAT(error.message(), AllOf(HasSubstr("clip_qkv"), HasSubstr("8.0")));
}

/// As llama.cpp's converter describes the released model: without the keys that have defaults.
formats::Metadata released_metadata() {
  formats::Metadata metadata("m.gguf");
  olmoe().write_gguf(read(released_config()), metadata);
  for (const char* key :
       {"expert_weights_norm", "attention.key_length", "attention.value_length"}) {
    metadata.erase(fmt::format("olmoe.{}", key));
  }
  return metadata;
}

ModelSpec read(const formats::Metadata& metadata) {
  const auto file = formats::open_model(tiny_folder("olmoe-plain"));  // for want of biases
  return olmoe().read_gguf(GgufConfig(metadata, "olmoe"), *file);
}

TEST(Olmoe, ReadsTheKeysThatLlamaCppWrites) {
  const formats::Metadata metadata = released_metadata();
  EXPECT_EQ(metadata.integer("olmoe.feed_forward_length"), 1024U);
  const ModelSpec spec = read(metadata);
  EXPECT_EQ(spec.moe.moe_intermediate_size, 1024U);
  EXPECT_EQ(spec.moe.num_experts, 64U);
  EXPECT_EQ(spec.moe.top_k, 8U);
  EXPECT_EQ(spec.head_dim, 128U);
  EXPECT_EQ(spec.query_key_norm, QueryKeyNorm::kFullWidth);
  EXPECT_FALSE(spec.moe.renormalize_top_k);
  EXPECT_EQ(spec.num_moe_layers(), 16U);
}

TEST(Olmoe, RefusesToClipInAGgufFileToo) {
  formats::Metadata metadata = released_metadata();
  metadata.set("olmoe.attention.clamp_kqv", 8.0F);
  const Error error = error_of([&] { read(metadata); });
  EXPECT_EQ(error.code(), ErrorCode::kBadData);
  EXPECT_THAT(error.message(), AllOf(HasSubstr("m.gguf"), HasSubstr("clamp_kqv"), HasSubstr("8")));
}

TEST(Olmoe, SaysWhatLlamaCppWouldLose) {
  EXPECT_THAT(olmoe().lost_in_llama_cpp(read(released_config())), IsEmpty());
  const auto with = [](const char* key, const Json& value) {
    Json config = released_config();
    config[key] = value;
    return olmoe().lost_in_llama_cpp(read(config));
  };
  EXPECT_THAT(with("norm_topk_prob", true), ElementsAre(HasSubstr("sum")));
  EXPECT_THAT(with("num_key_value_heads", 4), ElementsAre(HasSubstr("keys")));
  EXPECT_THAT(with("tie_word_embeddings", true), ElementsAre(HasSubstr("output matrix")));
  EXPECT_THAT(with("attention_bias", true), ElementsAre(HasSubstr("biases")));
}

}  // namespace
}  // namespace winnow::model::olmoe_test

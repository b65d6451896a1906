// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What is llama's own. Logits and round trips are tested over all tiny models.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/architecture.h"
#include "model/test_models.h"

namespace winnow::model::llama_test {
namespace {

using testing::error_of;
using ::testing::HasSubstr;
using testing::tiny_folder;

const Architecture& llama() { return *find_by_gguf_name("llama"); }

/// The sizes of SmolLM2-135M (arXiv:2502.02737).
Json released_config() {
  return parse_json(R"({"attention_bias": false, "hidden_act": "silu", "hidden_size": 576,
      "intermediate_size": 1536, "max_position_embeddings": 8192, "mlp_bias": false,
      "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
      "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null, "rope_theta": 100000,
      "tie_word_embeddings": true, "vocab_size": 49152})",
                    "c");
}

ModelSpec read(const Json& config) {
  ModelSpec spec = llama().read_hf(HfConfig(config, "m/config.json"));
  spec.architecture = llama().gguf_name;
  check_spec(spec, "m/config.json");
  return spec;
}

formats::Metadata written(const ModelSpec& spec) {
  formats::Metadata metadata("m.gguf");
  llama().write_gguf(spec, metadata);
  return metadata;
}

TEST(Llama, HasNoNormsOfQueriesAndKeysAndTheParametersOfTheReleasedModel) {
  const ModelSpec spec = read(released_config());
  EXPECT_EQ(testing::parameters_of(spec), 134515008U);
  EXPECT_EQ(spec.query_key_norm, QueryKeyNorm::kNone);
  EXPECT_EQ(spec.rotary_pairs, RotaryPairs::kHalves);
}

TEST(Llama, GgufFilesPairNeighbours) {
  const formats::Metadata metadata = written(read(released_config()));
  const auto file = formats::open_model(tiny_folder("llama-plain"));  // for want of biases
  const ModelSpec spec = llama().read_gguf(GgufConfig(metadata, "llama"), *file);
  EXPECT_EQ(spec.rotary_pairs, RotaryPairs::kAdjacent);
  EXPECT_EQ(spec.num_key_value_heads, 3U);
  EXPECT_EQ(spec.head_dim, 64U);
  EXPECT_FALSE(spec.attention_bias);
}

TEST(Llama, RefusesExpertsAndBiasesInTheFeedForwardLayers) {
  formats::Metadata metadata = written(read(released_config()));
  metadata.set("llama.expert_count", std::uint32_t{8});
  const auto file = formats::open_model(tiny_folder("llama-plain"));
  const Error error = error_of([&] { llama().read_gguf(GgufConfig(metadata, "llama"), *file); });
  EXPECT_EQ(error.code(), ErrorCode::kBadData);
  EXPECT_THAT(error.what(), HasSubstr("'llama.expert_count' is 8"));
  Json config = released_config();
  config["mlp_bias"] = true;
  EXPECT_THAT(error_of([&] { read(config); }).what(), HasSubstr("mlp_bias"));
}

TEST(Llama, RefusesFrequenciesThatAreScaledOneByOne) {
  Json config = released_config();
  config["rope_scaling"] = {{"rope_type", "llama3"}, {"factor", 8.0}};
  EXPECT_THAT(error_of([&] { read(config); }).what(), HasSubstr("rope_scaling"));
}

}  // namespace
}  // namespace winnow::model::llama_test

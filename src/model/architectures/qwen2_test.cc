// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What is Qwen2's own. Logits and round trips are tested over all tiny models.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/architecture.h"
#include "model/test_models.h"

namespace winnow::model::qwen2_test {
namespace {

using testing::error_of;
using ::testing::HasSubstr;
using testing::tiny_folder;

const Architecture& qwen2() { return *find_by_gguf_name("qwen2"); }

/// The configuration of Qwen2.5-0.5B (arXiv:2412.15115).
Json released_config() {
  return parse_json(R"({"hidden_act": "silu", "hidden_size": 896, "intermediate_size": 4864,
      "max_position_embeddings": 32768, "max_window_layers": 24, "num_attention_heads": 14,
      "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
      "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": true,
      "use_mrope": false, "use_sliding_window": false, "vocab_size": 151936})",
                    "c");
}

ModelSpec read(const Json& config) {
  ModelSpec spec = qwen2().read_hf(HfConfig(config, "m/config.json"));
  spec.architecture = qwen2().gguf_name;
  check_spec(spec, "m/config.json");
  return spec;
}

TEST(Qwen2, HasTheParametersOfTheReleasedModel) {
  const ModelSpec spec = read(released_config());
  const std::uint64_t layer =
      2 * 896 + 2 * 896 * 896 + 896 + 2 * (128 * 896 + 128) + 3 * 896 * 4864;
  EXPECT_EQ(testing::parameters_of(spec), std::uint64_t{151936} * 896 + 896 + 24 * layer);
  EXPECT_EQ(testing::parameters_of(spec), 494032768U);  // "0.5B" of its name
}

TEST(Qwen2, HasBiasesOnQueriesKeysAndValuesAlone) {
  const ModelSpec spec = read(released_config());
  EXPECT_TRUE(spec.attention_bias);
  EXPECT_FALSE(spec.attention_output_bias);
  EXPECT_EQ(spec.query_key_norm, QueryKeyNorm::kNone);
}

TEST(Qwen2, WritesNoKeyThatItDoesNotRead) {
  Json config;
  qwen2().write_hf(read(released_config()), config);
  EXPECT_FALSE(config.contains("attention_bias"));
  EXPECT_TRUE(read(config).attention_bias);
}

TEST(Qwen2, ReadsTheKeysThatItWrites) {
  formats::Metadata metadata("m.gguf");
  qwen2().write_gguf(read(released_config()), metadata);
  const auto file = formats::open_model(tiny_folder("qwen2-plain"));
  const ModelSpec spec = qwen2().read_gguf(GgufConfig(metadata, "qwen2"), *file);
  EXPECT_EQ(spec.intermediate_size, 4864U);
  EXPECT_EQ(spec.num_key_value_heads, 2U);
  EXPECT_EQ(spec.head_dim, 64U);
  EXPECT_TRUE(spec.attention_bias);
}

TEST(Qwen2, RefusesASlidingWindow) {
  Json config = released_config();
  config["use_sliding_window"] = true;
  EXPECT_THAT(error_of([&] { read(config); }).message(), HasSubstr("use_sliding_window"));
}

}  // namespace
}  // namespace winnow::model::qwen2_test

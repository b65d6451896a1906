// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What is dense Qwen3's own. Logits and round trips are tested over all tiny models.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model/architecture.h"
#include "model/test_models.h"

namespace winnow::model::qwen3_test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::tiny_folder;

const Architecture& qwen3() { return *find_by_gguf_name("qwen3"); }

/// The configuration of Qwen3-1.7B (arXiv:2505.09388).
Json released_config() {
  return parse_json(R"({"attention_bias": false, "head_dim": 128, "hidden_act": "silu",
      "hidden_size": 2048, "intermediate_size": 6144, "max_position_embeddings": 40960,
      "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
      "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null,
      "tie_word_embeddings": true, "use_sliding_window": false, "vocab_size": 151936})",
                    "c");
}

ModelSpec read(const Json& config) {
  ModelSpec spec = qwen3().read_hf(HfConfig(config, "m/config.json"));
  spec.architecture = qwen3().gguf_name;
  check_spec(spec, "m/config.json");
  return spec;
}

TEST(Qwen3, HasNoExpertsAndTheParametersOfTheReleasedModel) {
  const ModelSpec spec = read(released_config());
  const std::uint64_t layer =
      2 * 2048 + 2 * 128 + 2 * 2048 * 2048 + 2 * 1024 * 2048 + std::uint64_t{3} * 2048 * 6144;
  EXPECT_EQ(testing::parameters_of(spec), std::uint64_t{151936} * 2048 + 2048 + 28 * layer);
  EXPECT_EQ(spec.num_moe_layers(), 0U);
  EXPECT_EQ(describe_router(spec), "none (dense model)");
}

TEST(Qwen3, ReadsTheKeysThatItWrites) {
  const ModelSpec written = read(released_config());
  formats::Metadata metadata("m.gguf");
  qwen3().write_gguf(written, metadata);
  const auto file = formats::open_model(tiny_folder("qwen3-plain"));  // for want of biases
  const ModelSpec spec = qwen3().read_gguf(GgufConfig(metadata, "qwen3"), *file);
  EXPECT_EQ(spec.intermediate_size, 6144U);
  EXPECT_EQ(spec.num_key_value_heads, 8U);
  EXPECT_EQ(spec.query_key_norm, QueryKeyNorm::kPerHead);
  EXPECT_EQ(spec.num_moe_layers(), 0U);
  EXPECT_FALSE(spec.attention_bias);
}

TEST(Qwen3, SaysWhatLlamaCppWouldLose) {
  Json config = released_config();
  EXPECT_THAT(qwen3().lost_in_llama_cpp(read(config)), IsEmpty());
  config["attention_bias"] = true;
  EXPECT_THAT(qwen3().lost_in_llama_cpp(read(config)), ElementsAre(HasSubstr("biases")));
}

}  // namespace
}  // namespace winnow::model::qwen3_test

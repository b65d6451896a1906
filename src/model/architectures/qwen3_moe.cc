// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Qwen3-MoE (arXiv:2505.09388): grouped-query attention with an RMS norm on each query and key
// head, SwiGLU experts, softmax router with the chosen weights renormalised.
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "model/architecture.h"

namespace winnow::model {
namespace {

constexpr std::array kTensors = {
    TensorPattern{Role::kRouter, "model.layers.{layer}.mlp.gate.weight"},
    TensorPattern{Role::kExpertGateProj,
                  "model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight"},
    TensorPattern{Role::kExpertUpProj, "model.layers.{layer}.mlp.experts.{expert}.up_proj.weight"},
    TensorPattern{Role::kExpertDownProj,
                  "model.layers.{layer}.mlp.experts.{expert}.down_proj.weight"},
};

ModelSpec read_hf(const HfConfig& config) {
  ModelSpec spec = read_common_hf(config);
  spec.query_key_norm = QueryKeyNorm::kPerHead;
  spec.attention_bias = config.boolean_or("attention_bias", false);
  spec.attention_output_bias = spec.attention_bias;
  spec.moe.num_experts = config.integer("num_experts");
  spec.moe.top_k = config.integer("num_experts_per_tok");
  spec.moe.moe_intermediate_size = config.integer("moe_intermediate_size");
  spec.moe.renormalize_top_k = config.boolean_or("norm_topk_prob", false);
  // A layer has experts when it is not listed as dense and its number fits the step.
  const auto dense_layers = config.integers_or_empty("mlp_only_layers");
  const std::uint32_t step = config.integer_or("decoder_sparse_step", 1);
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    const bool listed =
        std::find(dense_layers.begin(), dense_layers.end(), layer) != dense_layers.end();
    spec.moe_layers[layer] = !listed && step != 0 && (layer + 1) % step == 0;
  }
  return spec;
}

void write_hf(const ModelSpec& spec, Json& config) {
  write_common_hf(spec, config);
  config["num_experts"] = spec.moe.num_experts;
  config["num_experts_per_tok"] = spec.moe.top_k;
  config["moe_intermediate_size"] = spec.moe.moe_intermediate_size;
  config["norm_topk_prob"] = spec.moe.renormalize_top_k;
  config["decoder_sparse_step"] = 1;
  Json dense = Json::array();
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    if (!spec.moe_layers[layer]) dense.push_back(layer);
  }
  config["mlp_only_layers"] = dense;
}

ModelSpec read_gguf(const GgufConfig& config, const formats::ModelFile& file) {
  ModelSpec spec = read_common_gguf(config);
  spec.query_key_norm = QueryKeyNorm::kPerHead;
  spec.attention_bias = file.find("blk.0.attn_q.bias") != nullptr;
  spec.attention_output_bias = file.find("blk.0.attn_output.bias") != nullptr;
  spec.moe.num_experts = config.integer("expert_count");
  spec.moe.top_k = config.integer("expert_used_count");
  spec.moe.moe_intermediate_size = config.integer("expert_feed_forward_length");
  // Files of this architecture renormalise unless they say otherwise.
  spec.moe.renormalize_top_k = config.boolean_or("expert_weights_norm", true);
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    spec.moe_layers[layer] =
        file.find(expand_pattern(traits(Role::kRouter).gguf_pattern, LayerId{layer})) != nullptr;
  }
  return spec;
}

void write_gguf(const ModelSpec& spec, formats::Metadata& metadata) {
  write_common_gguf(spec, metadata);
  metadata.set("qwen3moe.expert_count", spec.moe.num_experts);
  metadata.set("qwen3moe.expert_used_count", spec.moe.top_k);
  metadata.set("qwen3moe.expert_feed_forward_length", spec.moe.moe_intermediate_size);
  metadata.set("qwen3moe.expert_weights_norm", spec.moe.renormalize_top_k);
}

std::vector<std::string> lost_in_llama_cpp(const ModelSpec& spec) {
  std::vector<std::string> losses;
  if (!spec.moe.renormalize_top_k) {
    losses.emplace_back("it always divides the chosen router weights by their sum");
  }
  if (spec.num_moe_layers() < spec.num_hidden_layers) {
    losses.emplace_back("it expects experts in every layer, and will refuse the dense ones");
  }
  if (spec.attention_bias || spec.attention_output_bias) {
    losses.emplace_back("it has no place for the biases of attention");
  }
  return losses;
}

}  // namespace

extern const Architecture kQwen3Moe{.hf_name = "Qwen3MoeForCausalLM",
                                    .hf_type = "qwen3_moe",
                                    .gguf_name = "qwen3moe",
                                    .read_hf = read_hf,
                                    .read_gguf = read_gguf,
                                    .write_hf = write_hf,
                                    .write_gguf = write_gguf,
                                    .tensors = kTensors,
                                    .lost_in_llama_cpp = lost_in_llama_cpp};

}  // namespace winnow::model

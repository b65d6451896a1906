// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// OLMoE (arXiv:2409.02060): attention with an RMS norm on the whole query and key projections,
// experts in every layer, softmax router whose chosen weights are used as they are.
#include <array>
#include <string>
#include <vector>

#include "base/error.h"
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

/// Both configurations give the width of an expert where other models have that of dense layers.
void make_all_layers_sparse(ModelSpec& spec) {
  spec.query_key_norm = QueryKeyNorm::kFullWidth;
  spec.moe.moe_intermediate_size = spec.intermediate_size;
  spec.intermediate_size = 0;
  spec.moe_layers.assign(spec.num_hidden_layers, true);
}

ModelSpec read_hf(const HfConfig& config) {
  config.require("clip_qkv", nullptr);
  ModelSpec spec = read_common_hf(config);
  make_all_layers_sparse(spec);
  spec.attention_bias = config.boolean_or("attention_bias", false);
  spec.attention_output_bias = spec.attention_bias;
  spec.moe.num_experts = config.integer("num_experts");
  spec.moe.top_k = config.integer("num_experts_per_tok");
  spec.moe.renormalize_top_k = config.boolean_or("norm_topk_prob", false);
  return spec;
}

void write_hf(const ModelSpec& spec, Json& config) {
  write_common_hf(spec, config);
  config["intermediate_size"] = spec.moe.moe_intermediate_size;
  config["clip_qkv"] = nullptr;
  config["num_experts"] = spec.moe.num_experts;
  config["num_experts_per_tok"] = spec.moe.top_k;
  config["norm_topk_prob"] = spec.moe.renormalize_top_k;
}

ModelSpec read_gguf(const GgufConfig& config, const formats::ModelFile& file) {
  if (config.number_or("attention.clamp_kqv", 0) != 0) {
    fail_data("{}: '{}' is {}; clipped queries, keys and values are not supported",
              config.metadata().source(), config.key("attention.clamp_kqv"),
              config.number("attention.clamp_kqv"));
  }
  ModelSpec spec = read_common_gguf(config);
  make_all_layers_sparse(spec);
  spec.attention_bias = file.find("blk.0.attn_q.bias") != nullptr;
  spec.attention_output_bias = file.find("blk.0.attn_output.bias") != nullptr;
  spec.moe.num_experts = config.integer("expert_count");
  spec.moe.top_k = config.integer("expert_used_count");
  spec.moe.renormalize_top_k = config.boolean_or("expert_weights_norm", false);
  return spec;
}

void write_gguf(const ModelSpec& spec, formats::Metadata& metadata) {
  write_common_gguf(spec, metadata);
  metadata.set("olmoe.feed_forward_length", spec.moe.moe_intermediate_size);
  metadata.set("olmoe.expert_count", spec.moe.num_experts);
  metadata.set("olmoe.expert_used_count", spec.moe.top_k);
  metadata.set("olmoe.expert_weights_norm", spec.moe.renormalize_top_k);
}

std::vector<std::string> lost_in_llama_cpp(const ModelSpec& spec) {
  std::vector<std::string> losses;
  if (spec.moe.renormalize_top_k) {
    losses.emplace_back("it never divides the chosen router weights by their sum");
  }
  if (spec.num_key_value_heads < spec.num_attention_heads) {
    losses.emplace_back("it expects as many heads of keys as of queries, and will refuse fewer");
  }
  if (spec.tie_word_embeddings) {
    losses.emplace_back("it expects an output matrix beside the token embeddings");
  }
  if (spec.attention_bias || spec.attention_output_bias) {
    losses.emplace_back("it has no place for the biases of attention");
  }
  return losses;
}

}  // namespace

extern const Architecture kOlmoe{.hf_name = "OlmoeForCausalLM",
                                 .hf_type = "olmoe",
                                 .gguf_name = "olmoe",
                                 .read_hf = read_hf,
                                 .read_gguf = read_gguf,
                                 .write_hf = write_hf,
                                 .write_gguf = write_gguf,
                                 .tensors = kTensors,
                                 .lost_in_llama_cpp = lost_in_llama_cpp};

}  // namespace winnow::model

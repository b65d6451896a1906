// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Qwen3, the dense models (arXiv:2505.09388): Qwen3-MoE without experts. Small ones are worth
// running as they are, and they show how speed depends on the weights that a step must read.
#include <span>

#include "model/architecture.h"

namespace winnow::model {
namespace {

ModelSpec read_hf(const HfConfig& config) {
  ModelSpec spec = read_common_hf(config);
  spec.query_key_norm = QueryKeyNorm::kPerHead;
  spec.attention_bias = config.boolean_or("attention_bias", false);
  spec.attention_output_bias = spec.attention_bias;
  return spec;
}

void write_hf(const ModelSpec& spec, Json& config) { write_common_hf(spec, config); }

ModelSpec read_gguf(const GgufConfig& config, const formats::ModelFile& file) {
  ModelSpec spec = read_common_gguf(config);
  spec.query_key_norm = QueryKeyNorm::kPerHead;
  spec.attention_bias = file.find("blk.0.attn_q.bias") != nullptr;
  spec.attention_output_bias = file.find("blk.0.attn_output.bias") != nullptr;
  return spec;
}

void write_gguf(const ModelSpec& spec, formats::Metadata& metadata) {
  write_common_gguf(spec, metadata);
}

std::vector<std::string> lost_in_llama_cpp(const ModelSpec& spec) {
  if (!spec.attention_bias && !spec.attention_output_bias) return {};
  return {"it has no place for the biases of attention"};
}

}  // namespace

extern const Architecture kQwen3{.hf_name = "Qwen3ForCausalLM",
                                 .hf_type = "qwen3",
                                 .gguf_name = "qwen3",
                                 .read_hf = read_hf,
                                 .read_gguf = read_gguf,
                                 .write_hf = write_hf,
                                 .write_gguf = write_gguf,
                                 .tensors = {},
                                 .lost_in_llama_cpp = lost_in_llama_cpp};

}  // namespace winnow::model

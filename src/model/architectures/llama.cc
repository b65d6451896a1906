// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Llama (arXiv:2302.13971) and the many dense models that share its blocks, SmolLM2
// (arXiv:2502.02737) among them: no norm on queries and keys. Its GGUF files pair neighbouring
// numbers in the rotary embedding.
#include "base/error.h"
#include "model/architecture.h"

namespace winnow::model {
namespace {

ModelSpec read_hf(const HfConfig& config) {
  ModelSpec spec = read_common_hf(config);
  spec.attention_bias = config.boolean_or("attention_bias", false);
  spec.attention_output_bias = spec.attention_bias;
  config.require("mlp_bias", false);
  config.require("rope_interleaved", false);
  return spec;
}

void write_hf(const ModelSpec& spec, Json& config) { write_common_hf(spec, config); }

ModelSpec read_gguf(const GgufConfig& config, const formats::ModelFile& file) {
  if (config.integer_or("expert_count", 0) != 0) {
    fail_data("{}: '{}' is {}; experts in this architecture (Mixtral) are not supported",
              config.metadata().source(), config.key("expert_count"),
              config.integer("expert_count"));
  }
  if (file.find("rope_freqs.weight") != nullptr) {
    fail_data(
        "{}: tensor 'rope_freqs.weight': rotary frequencies scaled one by one (Llama 3.1) are "
        "not supported",
        file.name());
  }
  ModelSpec spec = read_common_gguf(config);
  spec.rotary_pairs = RotaryPairs::kAdjacent;
  spec.attention_bias = file.find("blk.0.attn_q.bias") != nullptr;
  spec.attention_output_bias = file.find("blk.0.attn_output.bias") != nullptr;
  return spec;
}

void write_gguf(const ModelSpec& spec, formats::Metadata& metadata) {
  write_common_gguf(spec, metadata);
}

}  // namespace

extern const Architecture kLlama{.hf_name = "LlamaForCausalLM",
                                 .hf_type = "llama",
                                 .gguf_name = "llama",
                                 .read_hf = read_hf,
                                 .read_gguf = read_gguf,
                                 .write_hf = write_hf,
                                 .write_gguf = write_gguf,
                                 .tensors = {},
                                 .gguf_rotary_pairs = RotaryPairs::kAdjacent};

}  // namespace winnow::model

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Qwen2 and Qwen2.5, the dense models (arXiv:2407.10671): Llama's blocks with biases on queries,
// keys and values, which no key of the configuration turns off.
#include <string>
#include <vector>

#include "model/architecture.h"

namespace winnow::model {
namespace {

ModelSpec read_hf(const HfConfig& config) {
  ModelSpec spec = read_common_hf(config);
  spec.attention_bias = true;
  return spec;
}

void write_hf(const ModelSpec& spec, Json& config) {
  write_common_hf(spec, config);
  config.erase("attention_bias");  // no key of this architecture
}

ModelSpec read_gguf(const GgufConfig& config, const formats::ModelFile&) {
  ModelSpec spec = read_common_gguf(config);
  spec.attention_bias = true;
  return spec;
}

}  // namespace

extern const Architecture kQwen2{.hf_name = "Qwen2ForCausalLM",
                                 .hf_type = "qwen2",
                                 .gguf_name = "qwen2",
                                 .read_hf = read_hf,
                                 .read_gguf = read_gguf,
                                 .write_hf = write_hf,
                                 .write_gguf = write_common_gguf,
                                 .tensors = {}};

}  // namespace winnow::model

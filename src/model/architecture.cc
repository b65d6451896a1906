// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "model/architecture.h"

#include <algorithm>
#include <array>
#include <string>

namespace winnow::model {

#define ARCHITECTURE(name) extern const Architecture name;
#include "model/architectures/registry.def"
#undef ARCHITECTURE

namespace {

constexpr std::array kArchitectures = {
#define ARCHITECTURE(name) &name,
#include "model/architectures/registry.def"
#undef ARCHITECTURE
};

constexpr std::array kCommonTensors = {
    TensorPattern{Role::kTokenEmbedding, "model.embed_tokens.weight"},
    TensorPattern{Role::kOutputNorm, "model.norm.weight"},
    TensorPattern{Role::kOutput, "lm_head.weight"},
    TensorPattern{Role::kAttentionNorm, "model.layers.{layer}.input_layernorm.weight"},
    TensorPattern{Role::kQueryProj, "model.layers.{layer}.self_attn.q_proj.weight"},
    TensorPattern{Role::kQueryBias, "model.layers.{layer}.self_attn.q_proj.bias"},
    TensorPattern{Role::kKeyProj, "model.layers.{layer}.self_attn.k_proj.weight"},
    TensorPattern{Role::kKeyBias, "model.layers.{layer}.self_attn.k_proj.bias"},
    TensorPattern{Role::kValueProj, "model.layers.{layer}.self_attn.v_proj.weight"},
    TensorPattern{Role::kValueBias, "model.layers.{layer}.self_attn.v_proj.bias"},
    TensorPattern{Role::kQueryNorm, "model.layers.{layer}.self_attn.q_norm.weight"},
    TensorPattern{Role::kKeyNorm, "model.layers.{layer}.self_attn.k_norm.weight"},
    TensorPattern{Role::kAttentionOutput, "model.layers.{layer}.self_attn.o_proj.weight"},
    TensorPattern{Role::kAttentionOutputBias, "model.layers.{layer}.self_attn.o_proj.bias"},
    TensorPattern{Role::kFfnNorm, "model.layers.{layer}.post_attention_layernorm.weight"},
    TensorPattern{Role::kGateProj, "model.layers.{layer}.mlp.gate_proj.weight"},
    TensorPattern{Role::kUpProj, "model.layers.{layer}.mlp.up_proj.weight"},
    TensorPattern{Role::kDownProj, "model.layers.{layer}.mlp.down_proj.weight"},
};

template <typename Predicate>
const Architecture* find_if(Predicate predicate) {
  const auto found = std::find_if(kArchitectures.begin(), kArchitectures.end(), predicate);
  return found == kArchitectures.end() ? nullptr : *found;
}

}  // namespace

std::span<const Architecture* const> all_architectures() { return kArchitectures; }

const Architecture* find_by_hf_name(std::string_view hf_name) {
  return find_if([&](const Architecture* a) { return a->hf_name == hf_name; });
}

const Architecture* find_by_gguf_name(std::string_view gguf_name) {
  return find_if([&](const Architecture* a) { return a->gguf_name == gguf_name; });
}

std::string architecture_names() {
  std::string names;
  for (const Architecture* architecture : kArchitectures) {
    if (!names.empty()) names += ", ";
    names += architecture->hf_name;
  }
  return names;
}

std::span<const TensorPattern> common_hf_tensors() { return kCommonTensors; }

std::string_view hf_pattern(const Architecture& architecture, Role role) {
  for (const auto table : {architecture.tensors, common_hf_tensors()}) {
    for (const TensorPattern& pattern : table) {
      if (pattern.role == role) return pattern.name;
    }
  }
  return "";
}

}  // namespace winnow::model

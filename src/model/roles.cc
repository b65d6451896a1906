// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "model/roles.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "model/spec.h"

namespace winnow::model {
namespace {

using enum Role;

constexpr std::array<RoleTraits, kNumRoles> kTraits = {{
    // role, name, GGUF pattern, that of a single expert, per layer, per expert, is matrix
    {kTokenEmbedding, "token_embedding", "token_embd.weight", "", false, false, true},
    {kOutputNorm, "output_norm", "output_norm.weight", "", false, false, false},
    {kOutput, "output", "output.weight", "", false, false, true},
    {kAttentionNorm, "attention_norm", "blk.{layer}.attn_norm.weight", "", true, false, false},
    {kQueryProj, "q_proj", "blk.{layer}.attn_q.weight", "", true, false, true},
    {kQueryBias, "q_bias", "blk.{layer}.attn_q.bias", "", true, false, false},
    {kKeyProj, "k_proj", "blk.{layer}.attn_k.weight", "", true, false, true},
    {kKeyBias, "k_bias", "blk.{layer}.attn_k.bias", "", true, false, false},
    {kValueProj, "v_proj", "blk.{layer}.attn_v.weight", "", true, false, true},
    {kValueBias, "v_bias", "blk.{layer}.attn_v.bias", "", true, false, false},
    {kQueryNorm, "q_norm", "blk.{layer}.attn_q_norm.weight", "", true, false, false},
    {kKeyNorm, "k_norm", "blk.{layer}.attn_k_norm.weight", "", true, false, false},
    {kAttentionOutput, "o_proj", "blk.{layer}.attn_output.weight", "", true, false, true},
    {kAttentionOutputBias, "o_bias", "blk.{layer}.attn_output.bias", "", true, false, false},
    {kFfnNorm, "ffn_norm", "blk.{layer}.ffn_norm.weight", "", true, false, false},
    {kGateProj, "gate_proj", "blk.{layer}.ffn_gate.weight", "", true, false, true},
    {kUpProj, "up_proj", "blk.{layer}.ffn_up.weight", "", true, false, true},
    {kDownProj, "down_proj", "blk.{layer}.ffn_down.weight", "", true, false, true},
    {kRouter, "router", "blk.{layer}.ffn_gate_inp.weight", "", true, false, false},
    {kExpertGateProj, "expert_gate_proj", "blk.{layer}.ffn_gate_exps.weight",
     "blk.{layer}.ffn_gate.{expert}.weight", true, true, true},
    {kExpertUpProj, "expert_up_proj", "blk.{layer}.ffn_up_exps.weight",
     "blk.{layer}.ffn_up.{expert}.weight", true, true, true},
    {kExpertDownProj, "expert_down_proj", "blk.{layer}.ffn_down_exps.weight",
     "blk.{layer}.ffn_down.{expert}.weight", true, true, true},
    {kExpertConstant, "expert_constant", "", "blk.{layer}.ffn_constant.{expert}.weight", true, true,
     false},
}};

constexpr bool in_role_order() {
  for (std::size_t i = 0; i < kTraits.size(); ++i) {
    if (static_cast<std::size_t>(kTraits[i].role) != i) return false;
  }
  return true;
}
static_assert(in_role_order());

void replace(std::string& text, std::string_view placeholder, std::uint32_t number) {
  if (const auto at = text.find(placeholder); at != std::string::npos) {
    text.replace(at, placeholder.size(), fmt::to_string(number));
  }
}

bool has_constants(const ModelSpec& spec, LayerId layer) {
  if (!spec.has_varied_experts()) return false;
  const auto& experts = spec.varied_experts[index(layer)];
  return std::any_of(experts.begin(), experts.end(),
                     [](const ExpertShape& e) { return e.kind == ExpertKind::kConstant; });
}

}  // namespace

const RoleTraits& traits(Role role) { return kTraits[static_cast<std::size_t>(role)]; }
std::span<const RoleTraits> all_roles() { return kTraits; }

std::string expand_pattern(std::string_view pattern, LayerId layer, ExpertId expert) {
  std::string name(pattern);
  replace(name, "{layer}", index(layer));
  replace(name, "{expert}", index(expert));
  return name;
}

std::optional<tensor::Shape> expected_shape(const ModelSpec& spec, Role role, LayerId layer) {
  using tensor::Shape;
  const std::uint64_t hidden = spec.hidden_size;
  const std::uint64_t query = spec.query_width();
  const std::uint64_t key_value = spec.key_value_width();
  const std::uint64_t inner = spec.moe.moe_intermediate_size;
  const std::uint64_t dense_inner = spec.intermediate_size;
  const bool moe = traits(role).per_layer && spec.is_moe_layer(layer);
  const bool full_width = spec.query_key_norm == QueryKeyNorm::kFullWidth;
  const auto only_if = [](bool present, Shape shape) {
    return present ? std::optional(shape) : std::nullopt;
  };
  switch (role) {
    case kTokenEmbedding:
      return Shape{spec.vocab_size, hidden};
    case kOutput:
      return only_if(!spec.tie_word_embeddings, {spec.vocab_size, hidden});
    case kOutputNorm:
    case kAttentionNorm:
    case kFfnNorm:
      return Shape{hidden};
    case kQueryProj:
      return Shape{query, hidden};
    case kKeyProj:
    case kValueProj:
      return Shape{key_value, hidden};
    case kQueryBias:
      return only_if(spec.attention_bias, {query});
    case kKeyBias:
    case kValueBias:
      return only_if(spec.attention_bias, {key_value});
    case kQueryNorm:
      return only_if(spec.query_key_norm != QueryKeyNorm::kNone,
                     {full_width ? query : spec.head_dim});
    case kKeyNorm:
      return only_if(spec.query_key_norm != QueryKeyNorm::kNone,
                     {full_width ? key_value : spec.head_dim});
    case kAttentionOutput:
      return Shape{hidden, query};
    case kAttentionOutputBias:
      return only_if(spec.attention_output_bias, {hidden});
    case kGateProj:
    case kUpProj:
      return only_if(!moe, {dense_inner, hidden});
    case kDownProj:
      return only_if(!moe, {hidden, dense_inner});
    case kRouter:
      return only_if(moe, {spec.num_experts(layer), hidden});
    case kExpertGateProj:
    case kExpertUpProj:
      return only_if(moe, {inner, hidden});
    case kExpertDownProj:
      return only_if(moe, {hidden, inner});
    case kExpertConstant:
      return only_if(moe && has_constants(spec, layer), {hidden});
  }
  return std::nullopt;
}

std::optional<tensor::Shape> part_shape(const ModelSpec& spec, Role role, LayerId layer,
                                        ExpertId expert) {
  std::optional<tensor::Shape> shape = expected_shape(spec, role, layer);
  if (!shape || !traits(role).per_expert || !spec.has_varied_experts()) return shape;
  const ExpertShape varied = spec.expert(layer, expert);
  const bool has = role == kExpertConstant ? varied.kind == ExpertKind::kConstant
                                           : varied.kind == ExpertKind::kFeedForward;
  if (!has) return std::nullopt;
  if (role == kExpertDownProj) return tensor::Shape{spec.hidden_size, varied.width};
  if (role != kExpertConstant) return tensor::Shape{varied.width, spec.hidden_size};
  return shape;
}

}  // namespace winnow::model

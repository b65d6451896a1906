// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What each tensor of a model is for. Architecture files map names to roles; everything else in the
// program speaks of roles.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/units.h"
#include "tensor/shape.h"

namespace winnow::model {

struct ModelSpec;

/// Matrices are [out_features, in_features]; y = down(silu(gate(x)) * up(x)).
enum class Role : std::uint8_t {
  kTokenEmbedding,  ///< [vocab_size, hidden_size]; also the output matrix when embeddings are tied
  kOutputNorm,      ///< [hidden_size]
  kOutput,          ///< [vocab_size, hidden_size]
  kAttentionNorm,   ///< [hidden_size]
  kQueryProj,       ///< [num_attention_heads * head_dim, hidden_size]
  kQueryBias,       ///< [num_attention_heads * head_dim]
  kKeyProj,         ///< [num_key_value_heads * head_dim, hidden_size]
  kKeyBias,
  kValueProj,  ///< [num_key_value_heads * head_dim, hidden_size]
  kValueBias,
  kQueryNorm,  ///< [head_dim], or the whole width of the projection
  kKeyNorm,
  kAttentionOutput,  ///< [hidden_size, num_attention_heads * head_dim]
  kAttentionOutputBias,
  kFfnNorm,   ///< [hidden_size]
  kGateProj,  ///< dense layers: [intermediate_size, hidden_size]
  kUpProj,
  kDownProj,        ///< dense layers: [hidden_size, intermediate_size]
  kRouter,          ///< [num_experts, hidden_size]
  kExpertGateProj,  ///< each expert: [moe_intermediate_size, hidden_size]
  kExpertUpProj,
  kExpertDownProj,  ///< each expert: [hidden_size, moe_intermediate_size]
  kExpertConstant,  ///< each expert that is a constant: [hidden_size]
};

inline constexpr std::size_t kNumRoles = static_cast<std::size_t>(Role::kExpertConstant) + 1;

/// Facts about a role that hold for every architecture.
struct RoleTraits {
  Role role;
  std::string_view name;          ///< for people and JSON: "expert_down_proj"
  std::string_view gguf_pattern;  ///< "blk.{layer}.ffn_down_exps.weight"
  /// Of a single expert, where they vary: "blk.{layer}.ffn_down.{expert}.weight"; empty for roles
  /// that are no expert's.
  std::string_view gguf_expert_pattern;
  bool per_layer;
  bool
      per_expert;  ///< GGUF stacks these unless they vary: [num_experts, out_features, in_features]
  bool is_matrix;  ///< may be quantised; vectors and the router stay in F32
};

const RoleTraits& traits(Role role);
std::span<const RoleTraits> all_roles();

/// Replaces "{layer}" and "{expert}" in a name pattern.
std::string expand_pattern(std::string_view pattern, LayerId layer, ExpertId expert = {});

/// Shape of the tensor (of one expert, for per-expert roles), or nothing when the layer of this
/// model has no such tensor. Where experts vary, of one with the full width.
std::optional<tensor::Shape> expected_shape(const ModelSpec& spec, Role role, LayerId layer);
/// The same for this very expert of the layer, or nothing when it has no such tensor.
std::optional<tensor::Shape> part_shape(const ModelSpec& spec, Role role, LayerId layer,
                                        ExpertId expert);

}  // namespace winnow::model

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// All that the engine and the compressor need to know of a model; architecture files fill it in.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/units.h"

namespace winnow::model {

/// How router logits become scores.
enum class RouterScore : std::uint8_t { kSoftmax };

/// Normalisation of queries and keys before the rotary embedding.
enum class QueryKeyNorm : std::uint8_t {
  kNone,
  kPerHead,    ///< RMS norm of each head, weight [head_dim] (Qwen3)
  kFullWidth,  ///< RMS norm of the whole projection, weight [heads * head_dim] (OLMoE)
};

/// Which numbers of a head the rotary embedding turns together. A model's queries and keys agree;
/// the order of the rows of both projections makes one into the other.
enum class RotaryPairs : std::uint8_t {
  kHalves,    ///< (i, i + head_dim / 2): Hugging Face checkpoints, most GGUF files
  kAdjacent,  ///< (2 i, 2 i + 1): GGUF files of `llama`
};

/// What a routed expert computes. Those without matrices are MoE++'s zero-computation experts
/// (arXiv:2410.07348).
enum class ExpertKind : std::uint8_t {
  kFeedForward,  ///< down(silu(gate(x)) * up(x))
  kZero,         ///< nothing
  kIdentity,     ///< x, the layer's normalised input
  kConstant,     ///< a vector of its own, whatever x is
  kShared,       ///< what another expert of its layer does, whose matrices it uses
};

struct ExpertShape {
  ExpertKind kind = ExpertKind::kFeedForward;
  std::uint32_t width = 0;        ///< inner channels; 0 for experts without matrices of their own
  std::uint32_t shared_with = 0;  ///< of kShared: a kFeedForward expert of its layer; 0 for others
  bool operator==(const ExpertShape&) const = default;
};

/// The mixture-of-experts part. Widths are per expert.
struct MoeSpec {
  std::uint32_t num_experts = 0;  ///< routed experts of a layer; the most of any, where they vary
  std::uint32_t top_k = 0;        ///< experts per token, in [1, num_experts]
  std::uint32_t moe_intermediate_size = 0;
  RouterScore score = RouterScore::kSoftmax;
  bool renormalize_top_k = true;  ///< divide the chosen scores by their sum
};

/// Sizes are element counts, names as in Hugging Face's config.json.
struct ModelSpec {
  std::string architecture;  ///< name in GGUF's `general.architecture`
  std::string name;          ///< for people; may be empty
  std::uint32_t vocab_size = 0;
  std::uint32_t hidden_size = 0;
  std::uint32_t intermediate_size = 0;  ///< inner width of dense layers; 0 when there are none
  std::uint32_t num_hidden_layers = 0;
  std::uint32_t num_attention_heads = 0;
  std::uint32_t num_key_value_heads = 0;
  std::uint32_t head_dim = 0;
  std::uint32_t max_position_embeddings = 0;
  float rms_norm_eps = 0;
  double rope_theta = 0;
  RotaryPairs rotary_pairs = RotaryPairs::kHalves;
  QueryKeyNorm query_key_norm = QueryKeyNorm::kNone;
  bool attention_bias = false;  ///< on the query, key and value projections
  bool attention_output_bias = false;
  bool tie_word_embeddings = false;
  /// Which factors pass through the blocks unchanged, for rescaling parameters without changing the
  /// model. False: an activation that clamps or shifts up; a norm on values or a gate on
  /// attention's output; norms that multiply with 1 + w.
  bool ffn_is_linear_in_up = true;
  bool attention_is_linear_in_values = true;
  bool norm_weights_are_factors = true;
  MoeSpec moe;
  std::vector<bool> moe_layers;  ///< [num_hidden_layers]: true where the layer has experts
  /// [num_hidden_layers][experts], of dense layers none: a model whose experts vary, which only the
  /// extended layout holds. Empty: all MoE layers have `moe.num_experts` of the same shape.
  std::vector<std::vector<ExpertShape>> varied_experts;
  /// The numbers that the experts had in the model they were chosen from, layer after layer; empty:
  /// their own.
  std::vector<std::uint32_t> source_experts;

  /// CRC-32C of the experts as the file holds them (extended_layout.h), layer after layer; empty:
  /// unknown.
  std::vector<std::uint32_t> expert_checksums;

  bool is_moe_layer(LayerId layer) const { return moe_layers[index(layer)]; }
  bool has_varied_experts() const { return !varied_experts.empty(); }
  /// Experts that the layer's router chooses from; 0 for a dense layer.
  std::uint32_t num_experts(LayerId layer) const;
  /// Of an expert that the layer has.
  ExpertShape expert(LayerId layer, ExpertId expert) const;
  /// The expert of the layer that has what this one computes with: itself, unless it is shared.
  ExpertId owner_of(LayerId layer, ExpertId expert) const;
  bool has_shared_experts() const;
  /// Experts of the MoE layers before `layer`: where those of `layer` begin in `source_experts`.
  std::size_t experts_before(LayerId layer) const;
  std::uint32_t query_width() const { return num_attention_heads * head_dim; }
  std::uint32_t key_value_width() const { return num_key_value_heads * head_dim; }
  std::uint32_t num_moe_layers() const;
};

/// GGUF key of `ModelSpec::source_experts`, an array of u32.
inline constexpr const char* kSourceExpertsKey = "winnow.experts.kept";

/// Refuses impossible values (zero sizes, heads that do not divide, top_k > num_experts ...) with
/// Error{kBadData} that begins with `source` and names the key.
void check_spec(const ModelSpec& spec, const std::string& source);

/// The router in words: "softmax over 32 experts, top 4, weights renormalised".
std::string describe_router(const ModelSpec& spec);

}  // namespace winnow::model

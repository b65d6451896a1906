// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How calibration and metrics look into a forward pass without the engine knowing of them.
#pragma once

#include <cstdint>
#include <span>

#include "base/units.h"
#include "tensor/matrix.h"

namespace winnow::engine {

/// An input that one or more weight matrices share.
enum class Site : std::uint8_t {
  kAttentionInput,  ///< of the query, key and value projections; [tokens, hidden_size]
  kAttentionInner,  ///< of the attention output projection; [tokens, heads * head_dim]
  kFfnInput,        ///< of the router or the dense gate and up projections; [tokens, hidden_size]
  kFfnInner,        ///< of the dense down projection; [tokens, intermediate_size]
  kExpertInput,     ///< of an expert's gate and up projections; only the tokens routed to it
  kExpertInner,     ///< of an expert's down projection; only the tokens routed to it
  kOutputInput,     ///< of the output matrix; [tokens, hidden_size]
};

/// The chosen experts of one layer: [tokens, top_k], row-major, best first.
struct RoutingView {
  std::size_t top_k = 0;
  std::span<const ExpertId> experts;  ///< [tokens * top_k]
  std::span<const float> weights;     ///< [tokens * top_k], as applied to the outputs
  /// [tokens]: the first so many of a token's choices are computed, a policy skips the others;
  /// empty: all are. Only a RoutingPolicy that skips leaves any out.
  std::span<const std::uint32_t> used = {};

  /// Of that token.
  std::size_t used_of(std::size_t token) const { return used.empty() ? top_k : used[token]; }
};

/// All that the chosen experts of one layer did with a batch. A slot is one (token, choice); slots
/// are grouped by expert, ascending, and ordered by token within one.
struct ExpertSlots {
  std::size_t top_k = 0;
  std::span<const ExpertId> experts;      ///< those chosen at least once, ascending
  std::span<const std::uint32_t> first;   ///< [experts + 1]: slots of experts[i] begin at first[i]
  std::span<const std::uint32_t> tokens;  ///< [slots]
  std::span<const float> weights;         ///< [slots], as applied to the outputs
  /// [tokens * top_k]: slot of each (token, choice); the largest number for those that are skipped
  std::span<const std::uint32_t> slot_of;
  tensor::MatrixView<const float> inputs;   ///< [tokens, hidden_size]
  tensor::MatrixView<const float> inner;    ///< [slots, moe_intermediate_size]
  tensor::MatrixView<const float> outputs;  ///< [slots, hidden_size], before the weights
};

/// Called in a fixed order from the thread that runs the engine; must not call back into it.
class Observer {
 public:
  virtual ~Observer() = default;
  /// `x` is valid during the call. `layer` is 0 for kOutputInput.
  virtual void on_input(Site /*site*/, LayerId /*layer*/, tensor::MatrixView<const float> /*x*/) {}
  /// False when on_expert_input does nothing, which saves gathering its rows.
  virtual bool wants_expert_inputs() const { return true; }
  /// `x` has one row per routed token, `weights` [rows] their router weights.
  virtual void on_expert_input(Site /*site*/, LayerId /*layer*/, ExpertId /*expert*/,
                               tensor::MatrixView<const float> /*x*/,
                               std::span<const float> /*weights*/) {}
  /// `logits`: [tokens, num_experts] before the score function.
  virtual void on_routing(LayerId /*layer*/, tensor::MatrixView<const float> /*logits*/,
                          const RoutingView& /*routing*/) {}
  /// Once a pass and layer, after the last expert.
  virtual void on_experts(LayerId /*layer*/, const ExpertSlots& /*slots*/) {}
};

}  // namespace winnow::engine

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What one token costs in bytes and multiply-adds, counted from a model's matrices: the yardstick
// beside the machine's limits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/units.h"
#include "kernels/key_values.h"
#include "model/checkpoint.h"

namespace winnow::engine {

struct TokenCost {
  /// Weight bytes that decoding one token touches: one row of the embedding, all dense tensors,
  /// top_k experts of each layer (of the layer's mean size), the output matrix.
  double weight_bytes = 0;
  /// The part of `weight_bytes` that is experts, and the part that is the row of the embedding.
  double expert_bytes = 0;
  std::uint64_t embedding_row_bytes = 0;
  /// Bytes of keys and values for one earlier position, all layers.
  std::uint64_t kv_bytes_per_position = 0;
  /// Multiply-adds of weight matrices without the output matrix; attention scores not counted.
  std::uint64_t multiply_adds = 0;
  /// The part of `multiply_adds` that is experts.
  std::uint64_t expert_multiply_adds = 0;
  /// Those of the output matrix.
  std::uint64_t output_multiply_adds = 0;

  /// The same of a run that computes only this share of the experts, 0 to 1.
  TokenCost with_experts(double share) const;
  /// Bytes of weights, keys and values for a token at this position.
  double decode_bytes(double position) const {
    return weight_bytes + position * static_cast<double>(kv_bytes_per_position);
  }
  /// Bytes of a step that decodes one token of each of several sequences at this position, whose
  /// experts, each counted once, take `chosen_expert_bytes`. Dense weights are read once.
  double step_bytes(std::size_t sequences, double chosen_expert_bytes, double position) const {
    const auto count = static_cast<double>(sequences);
    return weight_bytes - expert_bytes + chosen_expert_bytes +
           (count - 1) * static_cast<double>(embedding_row_bytes) +
           count * position * static_cast<double>(kv_bytes_per_position);
  }
  /// Multiply-adds per token of a prompt, whose last token alone needs the output matrix.
  double prefill_multiply_adds(std::size_t prompt_tokens) const {
    return static_cast<double>(multiply_adds) +
           static_cast<double>(output_multiply_adds) / static_cast<double>(prompt_tokens);
  }
};

/// `kv_type` is that of the caches.
TokenCost token_cost(const model::Checkpoint& checkpoint,
                     kernels::KvType kv_type = kernels::KvType::kF32);

}  // namespace winnow::engine

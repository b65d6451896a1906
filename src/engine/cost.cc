// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/cost.h"

#include <cmath>

#include "engine/kv_cache.h"

namespace winnow::engine {

using model::Role;

TokenCost TokenCost::with_experts(double share) const {
  TokenCost cost = *this;
  cost.expert_bytes *= share;
  cost.weight_bytes -= expert_bytes - cost.expert_bytes;
  cost.expert_multiply_adds =
      static_cast<std::uint64_t>(std::llround(share * static_cast<double>(expert_multiply_adds)));
  cost.multiply_adds -= expert_multiply_adds - cost.expert_multiply_adds;
  return cost;
}

TokenCost token_cost(const model::Checkpoint& checkpoint, kernels::KvType kv_type) {
  const model::ModelSpec& spec = checkpoint.spec();
  TokenCost cost;
  checkpoint.for_each_role([&](Role role, LayerId layer) {
    const model::RoleTraits& traits = model::traits(role);
    if (role == Role::kTokenEmbedding || role == Role::kOutput) return;
    const std::size_t parts = checkpoint.part_count(role, layer);
    const double used = traits.per_expert ? spec.moe.top_k : 1;
    std::uint64_t bytes = 0;
    std::uint64_t multiply_adds = 0;
    for (std::uint32_t part = 0; part < parts; ++part) {
      const ExpertId owner = traits.per_expert ? spec.owner_of(layer, ExpertId{part}) : ExpertId{};
      const auto ref = checkpoint.find(role, layer, owner);
      if (!ref) continue;  // an expert without matrices
      bytes += ref->stored_bytes().value;
      multiply_adds += ref->multiply_adds();
    }
    const double share = used / static_cast<double>(parts);
    const double touched = share * static_cast<double>(bytes);
    cost.weight_bytes += touched;
    if (traits.per_expert) cost.expert_bytes += touched;
    if (traits.is_matrix || role == Role::kRouter) {
      const auto used_multiply_adds =
          static_cast<std::uint64_t>(std::llround(share * static_cast<double>(multiply_adds)));
      cost.multiply_adds += used_multiply_adds;
      if (traits.per_expert) cost.expert_multiply_adds += used_multiply_adds;
    }
  });
  const model::TensorRef embedding = checkpoint.at(Role::kTokenEmbedding);
  const model::TensorRef output =
      spec.tie_word_embeddings ? embedding : checkpoint.at(Role::kOutput);
  cost.embedding_row_bytes = embedding.row_bytes();
  cost.weight_bytes +=
      static_cast<double>(embedding.row_bytes()) + static_cast<double>(output.stored_bytes().value);
  cost.output_multiply_adds = output.multiply_adds();
  cost.kv_bytes_per_position = kv_bytes_per_position(spec, kv_type);
  return cost;
}

}  // namespace winnow::engine

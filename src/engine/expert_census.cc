// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/expert_census.h"

namespace winnow::engine {

ExpertCensus::ExpertCensus(const model::Checkpoint& checkpoint)
    : spec_(checkpoint.spec()), expert_bytes_(spec_.num_hidden_layers) {
  checkpoint.for_each_role([&](model::Role role, LayerId layer) {
    if (!model::traits(role).per_expert) return;
    auto& bytes = expert_bytes_[index(layer)];
    bytes.resize(checkpoint.part_count(role, layer));
    for (std::uint32_t expert = 0; expert < bytes.size(); ++expert) {
      const auto ref = checkpoint.find(role, layer, ExpertId{expert});
      if (ref) bytes[expert] += ref->stored_bytes().value;
    }
  });
}

void ExpertCensus::on_routing(LayerId layer, tensor::MatrixView<const float>,
                              const RoutingView& routing) {
  const auto& bytes = expert_bytes_[index(layer)];
  chosen_.assign(bytes.size(), false);
  for (std::size_t i = 0; i < routing.experts.size(); ++i) {
    if (i % routing.top_k >= routing.used_of(i / routing.top_k)) continue;
    const ExpertId expert = spec_.owner_of(layer, routing.experts[i]);
    if (chosen_[index(expert)]) continue;
    chosen_[index(expert)] = true;
    ++experts_;
    bytes_ += bytes[index(expert)];
  }
}

}  // namespace winnow::engine

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/route_recorder.h"

#include <algorithm>

#include "base/error.h"

namespace winnow::engine {

using experts::RouteTrace;

RouteRecorder::RouteRecorder(const model::ModelSpec& spec)
    : spec_(spec), place_(spec.num_hidden_layers) {
  if (spec.num_moe_layers() == 0) {
    fail(ErrorCode::kUsage, "the model has no experts, so there are no routes to record");
  }
  if (spec.moe.num_experts >= RouteTrace::kNone) {
    fail(ErrorCode::kUsage, "a trace holds fewer than {} experts a layer, the model has {}",
         RouteTrace::kNone, spec.moe.num_experts);
  }
  trace_.num_layers = spec.num_hidden_layers;
  trace_.num_experts = spec.moe.num_experts;
  trace_.top_k = spec.moe.top_k;
  for (std::uint32_t l = 0; l < spec.num_hidden_layers; ++l) {
    const LayerId layer{l};
    if (!spec.is_moe_layer(layer)) continue;
    place_[l] = trace_.layers.size();
    trace_.layers.push_back(layer);
    for (std::uint32_t e = 0; e < spec.num_experts(layer); ++e) {
      const bool is_stored =
          spec.expert(layer, ExpertId{e}).kind == model::ExpertKind::kFeedForward;
      trace_.stored_experts += is_stored ? 1 : 0;
    }
  }
}

void RouteRecorder::begin_sequence() { trace_.sequences.push_back(trace_.tokens()); }

void RouteRecorder::on_routing(LayerId layer, tensor::MatrixView<const float>,
                               const RoutingView& routing) {
  const std::size_t tokens = routing.experts.size() / routing.top_k;
  const std::size_t token_size = trace_.layers.size() * trace_.top_k;
  if (layer == trace_.layers.front()) {
    pass_begin_ = trace_.tokens();
    trace_.experts.resize(trace_.experts.size() + tokens * token_size, RouteTrace::kNone);
  }
  for (std::size_t t = 0; t < tokens; ++t) {
    const auto row =
        std::span(trace_.experts)
            .subspan((pass_begin_ + t) * token_size + place_[index(layer)] * trace_.top_k,
                     trace_.top_k);
    auto end = row.begin();
    for (const ExpertId chosen : routing.experts.subspan(t * routing.top_k, routing.used_of(t))) {
      const ExpertId owner = spec_.owner_of(layer, chosen);
      const auto number = static_cast<std::uint16_t>(index(owner));
      if (spec_.expert(layer, owner).kind != model::ExpertKind::kFeedForward) continue;
      if (std::find(row.begin(), end, number) == end) *end++ = number;
    }
  }
}

}  // namespace winnow::engine

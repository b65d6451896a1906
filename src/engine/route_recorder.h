// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Records which experts the tokens of a run choose, for experts/replay.h.
#pragma once

#include <vector>

#include "engine/observer.h"
#include "experts/route_trace.h"
#include "model/checkpoint.h"

namespace winnow::engine {

/// Give it to Engine::forward. Texts are run one after the other, each in any number of passes.
/// Experts that have no bytes of their own count as those whose bytes they use, or not at all.
class RouteRecorder final : public Observer {
 public:
  /// The model has experts, and RouteTrace can hold their numbers: Error{kUsage} otherwise.
  explicit RouteRecorder(const model::ModelSpec& spec);

  /// The tokens that follow are of another text.
  void begin_sequence();
  bool wants_expert_inputs() const override { return false; }
  void on_routing(LayerId layer, tensor::MatrixView<const float> logits,
                  const RoutingView& routing) override;

  const experts::RouteTrace& trace() const { return trace_; }

 private:
  model::ModelSpec spec_;
  experts::RouteTrace trace_;
  std::vector<std::size_t> place_;  // [num_layers]: in trace_.layers
  std::size_t pass_begin_ = 0;      // first token of the present pass
};

}  // namespace winnow::engine

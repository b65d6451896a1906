// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Counts the experts that forward passes really choose, each once a pass and layer: what several
// sequences decoded together have to read, since those that agree on an expert share its bytes.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/observer.h"
#include "model/checkpoint.h"

namespace winnow::engine {

/// Give it to Engine::forward; counts add up over passes.
class ExpertCensus final : public Observer {
 public:
  explicit ExpertCensus(const model::Checkpoint& checkpoint);

  void on_routing(LayerId layer, tensor::MatrixView<const float> logits,
                  const RoutingView& routing) override;

  /// Experts chosen by at least one token of a pass, over all passes and layers; those that share
  /// matrices count as one.
  std::uint64_t experts() const { return experts_; }
  /// The bytes of their matrices.
  std::uint64_t bytes() const { return bytes_; }

 private:
  model::ModelSpec spec_;
  std::vector<std::vector<std::uint64_t>> expert_bytes_;  // [layers][experts]
  std::vector<bool> chosen_;                              // [experts], of the pass and layer
  std::uint64_t experts_ = 0;
  std::uint64_t bytes_ = 0;
};

}  // namespace winnow::engine

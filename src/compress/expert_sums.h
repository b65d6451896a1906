// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What the experts of a layer do on some text, as far as it decides what doing without one costs.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "compress/window_stream.h"
#include "engine/layer_runner.h"
#include "engine/observer.h"
#include "model/spec.h"

namespace winnow::compress {

/// Sums over the tokens that are sent to one expert: g the router's weight as it is applied, f the
/// expert's output, x its input. All f64, added in the order of the tokens.
struct ExpertSums {
  std::uint64_t tokens = 0;
  double squared_weights = 0;    ///< of g^2
  double squared_outputs = 0;    ///< of g^2 |f|^2
  double squared_residuals = 0;  ///< of g^2 |f - x|^2
  std::vector<double> outputs;   ///< of g^2 f, [hidden_size]
  double largest_output = 0;     ///< magnitude of the largest entry of any f
  /// Of |y' - y|^2, y the layer's output and y' what it would be if the router could not choose the
  /// expert: the next best takes its place. Infinite where there is no next. Over all tokens: where
  /// weights are not renormalised, those that are sent elsewhere change too.
  double squared_reroutes = 0;
  /// Of g^2 |f - f'|^2, f' the output of the `nearest` expert for the same token (see
  /// expert_likeness.h); infinite where nobody has looked.
  double squared_differences = INFINITY;
  ExpertId nearest{};
};

/// Of one MoE layer.
struct LayerSums {
  std::uint64_t tokens = 0;         ///< of the text
  std::vector<ExpertSums> experts;  ///< [experts of the layer]
};

/// Collects `LayerSums` from a layer that chooses one expert more than the model does
/// (LayerRunner::override_top_k), or as many where the model chooses all.
class ExpertSumCollector final : public engine::Observer {
 public:
  /// moe: as the model has it.
  ExpertSumCollector(const model::MoeSpec& moe, std::size_t num_experts, std::size_t hidden_size);

  bool wants_expert_inputs() const override { return false; }
  void on_routing(LayerId layer, tensor::MatrixView<const float> logits,
                  const engine::RoutingView& routing) override;
  void on_experts(LayerId layer, const engine::ExpertSlots& slots) override;
  const LayerSums& sums() const { return sums_; }

 private:
  /// One token: [chosen] weights, outputs.
  struct Token;
  void add_outputs(const Token& token, std::size_t choice);
  void add_reroutes(const Token& token, std::span<const double> scores);
  void add_lost_shares(const Token& token, std::span<const double> scores);

  const model::MoeSpec& moe_;
  LayerSums sums_;
  std::vector<double> gram_;       // [chosen, chosen] of one token's outputs
  std::vector<double> weights_;    // [chosen] of one token, as the model applies them
  tensor::Matrix<double> scores_;  // [tokens, experts]: logits
};

/// Those of the loaded layer on the states of `text`, which stay. The numbers do not depend on the
/// batches or the number of threads.
LayerSums collect_expert_sums(engine::LayerRunner& runner, const model::ModelSpec& spec,
                              LayerId layer, const WindowStream& text, Log& log);

}  // namespace winnow::compress

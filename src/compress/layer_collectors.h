// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// All collectors of one layer behind one observer of the engine.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "compress/statistic.h"

namespace winnow::compress {

/// Passes what the engine shows on to every registered family, and closes units.
class LayerCollectors final : public engine::Observer {
 public:
  /// Of a layer, or (`is_output`) of the output matrix. spec, kernels and pool must outlive it.
  LayerCollectors(const model::ModelSpec& spec, LayerId layer, bool is_output,
                  const kernels::Kernels& kernels, os::ThreadPool& pool,
                  std::span<const StatisticFamily* const> families = all_statistics());

  void begin_batch(std::span<const std::uint32_t> window_numbers);
  bool wants_expert_inputs() const override { return false; }
  void on_input(engine::Site site, LayerId layer, tensor::MatrixView<const float> x) override;
  void on_routing(LayerId layer, tensor::MatrixView<const float> logits,
                  const engine::RoutingView& routing) override;
  void on_experts(LayerId layer, const engine::ExpertSlots& slots) override;
  void on_layer(tensor::MatrixView<const float> input, tensor::MatrixView<const float> output);

  UnitSums& sums() { return sums_; }

 private:
  UnitSums sums_;
  std::vector<std::unique_ptr<StatisticCollector>> collectors_;
};

}  // namespace winnow::compress

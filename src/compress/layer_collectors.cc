// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/layer_collectors.h"

namespace winnow::compress {

LayerCollectors::LayerCollectors(const model::ModelSpec& spec, LayerId layer, bool is_output,
                                 const kernels::Kernels& kernels, os::ThreadPool& pool,
                                 std::span<const StatisticFamily* const> families) {
  const LayerContext context{spec, layer, is_output, kernels, pool, sums_};
  for (const StatisticFamily* family : families) {
    if (auto collector = family->make(context)) collectors_.push_back(std::move(collector));
  }
}

void LayerCollectors::begin_batch(std::span<const std::uint32_t> window_numbers) {
  for (const auto& collector : collectors_) collector->on_batch(window_numbers);
}

void LayerCollectors::on_input(engine::Site site, LayerId /*layer*/,
                               tensor::MatrixView<const float> x) {
  for (const auto& collector : collectors_) collector->on_input(site, x);
}

void LayerCollectors::on_routing(LayerId /*layer*/, tensor::MatrixView<const float> logits,
                                 const engine::RoutingView& routing) {
  for (const auto& collector : collectors_) collector->on_routing(logits, routing);
}

void LayerCollectors::on_experts(LayerId /*layer*/, const engine::ExpertSlots& slots) {
  for (const auto& collector : collectors_) collector->on_experts(slots);
}

void LayerCollectors::on_layer(tensor::MatrixView<const float> input,
                               tensor::MatrixView<const float> output) {
  for (const auto& collector : collectors_) collector->on_layer(input, output);
}

}  // namespace winnow::compress

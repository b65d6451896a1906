// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What one family of calibration statistics is. Each lives in its own file under statistics/ and
// has one line in statistics/registry.def; the file format, merging and resuming come by
// themselves.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/units.h"
#include "compress/unit_sums.h"
#include "engine/observer.h"
#include "kernels/kernels.h"
#include "model/spec.h"
#include "os/thread_pool.h"

namespace winnow::compress {

/// What a collector is made for: one layer, or the output matrix after the last one.
struct LayerContext {
  const model::ModelSpec& spec;
  LayerId layer;
  bool is_output = false;  ///< then there is no layer, only the input of the output matrix
  const kernels::Kernels& kernels;
  os::ThreadPool& pool;  ///< free while a collector is called
  UnitSums& sums;

  bool is_moe() const { return !is_output && spec.is_moe_layer(layer); }
};

/// Sums some quantities of one layer. Called in the order of the forward pass, batch by batch, with
/// the tokens in the order of the text. A sum must add its terms in the order of the tokens and
/// must be shared out to threads by elements: then neither batches nor threads change a bit.
class StatisticCollector {
 public:
  virtual ~StatisticCollector() = default;
  /// windows: for each token of the batch that follows, the number of its window in its domain.
  virtual void on_batch(std::span<const std::uint32_t> /*windows*/) {}
  virtual void on_input(engine::Site /*site*/, tensor::MatrixView<const float> /*x*/) {}
  virtual void on_routing(tensor::MatrixView<const float> /*logits*/,
                          const engine::RoutingView& /*routing*/) {}
  virtual void on_experts(const engine::ExpertSlots& /*slots*/) {}
  /// The residual stream before and after the layer, [tokens, hidden_size].
  virtual void on_layer(tensor::MatrixView<const float> /*input*/,
                        tensor::MatrixView<const float> /*output*/) {}
};

struct StatisticFamily {
  std::string_view name;     ///< "expert_outputs"
  std::string_view summary;  ///< what is summed, one line
  /// Null when the layer has nothing of the kind. Its quantities are added to `context.sums`.
  std::unique_ptr<StatisticCollector> (*make)(const LayerContext& context);
};

/// All families, in the order of statistics/registry.def.
std::span<const StatisticFamily* const> all_statistics();

}  // namespace winnow::compress

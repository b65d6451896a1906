// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Measures activation sparsity in a running model: samples what its FFNs do on text, then leaves
// out what the filters of a system choose and counts it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/json.h"
#include "base/log.h"
#include "engine/engine.h"
#include "engine/inner_editor.h"
#include "metrics/sparsity.h"
#include "metrics/text_data.h"

namespace winnow::metrics {

/// Runs the windows and keeps, of each layer, at most 2048 rows and 16 MiB. One sample per layer.
/// Throws what Engine::forward does, Error{kInterrupted}.
std::vector<LayerSample> sample_neurons(engine::Engine& engine, const WindowSet& windows, Log& log);

/// Sets what the filters choose to zero, in every FFN that runs, and counts.
class NeuronDropper final : public engine::InnerEditor {
 public:
  /// filters: of all layers.
  explicit NeuronDropper(std::vector<std::unique_ptr<NeuronFilter>> filters);

  void edit(const engine::InnerActivations& activations, os::ThreadPool& pool) override;

  /// Share of the neurons that were left out; nothing when none ran.
  std::optional<double> sparsity() const;
  /// Of each layer alone.
  std::vector<std::optional<double>> layer_sparsity() const;

 private:
  struct Count {
    std::uint64_t dropped = 0;
    std::uint64_t neurons = 0;
    std::optional<double> share() const;
  };
  std::vector<std::unique_ptr<NeuronFilter>> filters_;
  std::vector<Count> counts_;  // [layers]
};

/// `system, source, level, realised, layers`.
Json to_json(const SparsityRequest& request, const NeuronDropper& dropper);

}  // namespace winnow::metrics

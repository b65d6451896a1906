// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Decides from the gate alone, before up is computed: neuron j goes where gate_j^2 E[up_j^2], the
// mean square of what it would be, is at most T. T is the quantile of that over the layer's tokens
// and neurons; E[up_j^2] is each expert's own, so thresholds on |gate_j| are sqrt(T / E[up_j^2]).
#include <cmath>

#include "metrics/sparsity.h"

namespace winnow::metrics {
namespace {

class ChessFilter final : public NeuronFilter {
 public:
  ChessFilter(double level, const LayerSample& sample) {
    std::vector<double> importances;
    for (const LayerSample::Row& row : sample.rows) {
      const std::vector<double>& up = sample.mean_square_up[index(row.expert)];
      for (std::size_t j = 0; j < row.gate.size(); ++j) {
        importances.push_back(double{row.gate[j]} * row.gate[j] * up[j]);
      }
    }
    const double most = lower_quantile(std::move(importances), level);
    for (const std::vector<double>& expert : sample.mean_square_up) {
      thresholds_.emplace_back();
      for (const double up : expert) {
        // A neuron whose up is always zero adds nothing at any gate.
        thresholds_.back().push_back(up > 0 ? std::sqrt(most / up) : most > 0 ? INFINITY : 0);
      }
    }
  }

  void choose(const NeuronRow& row, std::span<std::uint8_t> drop) const override {
    const std::vector<double>& thresholds = thresholds_[index(row.expert)];
    for (std::size_t j = 0; j < drop.size(); ++j) {
      drop[j] = std::fabs(double{row.gate[j]}) <= thresholds[j] ? 1 : 0;
    }
  }

 private:
  std::vector<std::vector<double>> thresholds_;  // [experts][width]
};

}  // namespace

extern const SparsitySystem kChess{
    .name = "chess",
    .source = "CHESS, arXiv:2409.01366",
    .level = "the share of a layer's neurons to leave out",
    .needs_calibration = true,
    .dense_level = 0,
    .make = [](double level, const LayerNeurons& layer) -> std::unique_ptr<NeuronFilter> {
      return std::make_unique<ChessFilter>(level, *layer.sample);
    }};

}  // namespace winnow::metrics

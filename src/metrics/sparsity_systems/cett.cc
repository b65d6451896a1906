// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A neuron goes where what it adds to the FFN's output, |h_i| |W_i|, is at most the layer's
// threshold; thresholds are those at which every layer's cumulative error of tail truncation (CETT,
// cett_curve.h) is the same.
#include <cmath>
#include <utility>

#include "metrics/cett_curve.h"
#include "metrics/sparsity.h"

namespace winnow::metrics {
namespace {

class CettFilter final : public NeuronFilter {
 public:
  CettFilter(double level, const LayerNeurons& layer)
      : threshold_(CettCurve(layer).threshold_of(level)), norms_(output_norms(layer)) {}

  void choose(const NeuronRow& row, std::span<std::uint8_t> drop) const override {
    const std::vector<double>& norms = norms_[index(row.expert)];
    for (std::size_t i = 0; i < drop.size(); ++i) {
      drop[i] = std::fabs(double{row.inner[i]}) * norms[i] <= threshold_ ? 1 : 0;
    }
  }

 private:
  double threshold_;
  std::vector<std::vector<double>> norms_;  // [experts][width]
};

}  // namespace

extern const SparsitySystem kCett{
    .name = "cett",
    .source = "Sparsing Law, arXiv:2411.02335",
    .level = "the error of each FFN's output that is allowed, relative to its norm",
    .needs_calibration = true,
    .dense_level = 0,
    .make = [](double level, const LayerNeurons& layer) -> std::unique_ptr<NeuronFilter> {
      return std::make_unique<CettFilter>(level, layer);
    }};

}  // namespace winnow::metrics

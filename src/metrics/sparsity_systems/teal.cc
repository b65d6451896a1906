// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The smallest inputs of the down projection go: those up to one magnitude, the quantile over the
// layer's tokens and neurons. The published histogram is replaced by the values themselves.
#include <cmath>

#include "metrics/sparsity.h"

namespace winnow::metrics {
namespace {

class TealFilter final : public NeuronFilter {
 public:
  TealFilter(double level, const LayerSample& sample) {
    std::vector<double> magnitudes;
    for (const LayerSample::Row& row : sample.rows) {
      for (const float h : row.inner) magnitudes.push_back(std::fabs(double{h}));
    }
    threshold_ = lower_quantile(std::move(magnitudes), level);
  }

  void choose(const NeuronRow& row, std::span<std::uint8_t> drop) const override {
    for (std::size_t i = 0; i < drop.size(); ++i) {
      drop[i] = std::fabs(double{row.inner[i]}) <= threshold_ ? 1 : 0;
    }
  }

 private:
  double threshold_ = 0;
};

}  // namespace

extern const SparsitySystem kTeal{
    .name = "teal",
    .source = "TEAL, arXiv:2408.14690",
    .level = "the share of a layer's neurons to leave out",
    .needs_calibration = true,
    .dense_level = 0,
    .make = [](double level, const LayerNeurons& layer) -> std::unique_ptr<NeuronFilter> {
      return std::make_unique<TealFilter>(level, *layer.sample);
    }};

}  // namespace winnow::metrics

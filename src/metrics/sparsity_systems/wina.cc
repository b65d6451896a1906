// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Of each token the neurons with the smallest |h_i| |W_i| go, W_i being their column of the down
// projection: the choice of so many that has the least sum of h_i^2 |W_i|^2. The paper's rotation,
// which would make columns orthogonal and leaves dense matrices behind, is left out.
#include <cmath>
#include <utility>

#include "metrics/sparsity.h"

namespace winnow::metrics {
namespace {

class WinaFilter final : public NeuronFilter {
 public:
  WinaFilter(double level, std::vector<std::vector<double>> norms)
      : level_(level), norms_(std::move(norms)) {}

  void choose(const NeuronRow& row, std::span<std::uint8_t> drop) const override {
    const std::vector<double>& norms = norms_[index(row.expert)];
    std::vector<double> scores(drop.size());
    for (std::size_t i = 0; i < scores.size(); ++i) {
      scores[i] = std::fabs(double{row.inner[i]}) * norms[i];
    }
    drop_smallest(scores, share_of(level_, scores.size()), drop);
  }

 private:
  double level_;
  std::vector<std::vector<double>> norms_;  // [experts][width]
};

}  // namespace

extern const SparsitySystem kWina{
    .name = "wina",
    .source = "WINA, arXiv:2505.19427",
    .level = "the share of each token's neurons to leave out",
    .needs_calibration = false,
    .dense_level = 0,
    .make = [](double level, const LayerNeurons& layer) -> std::unique_ptr<NeuronFilter> {
      return std::make_unique<WinaFilter>(level, output_norms(layer));
    }};

}  // namespace winnow::metrics

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Of each token the smallest neurons go, by magnitude alone: h becomes top_k(h).
#include <cmath>

#include "metrics/sparsity.h"

namespace winnow::metrics {
namespace {

class TopFilter final : public NeuronFilter {
 public:
  explicit TopFilter(double level) : level_(level) {}

  void choose(const NeuronRow& row, std::span<std::uint8_t> drop) const override {
    std::vector<double> scores(drop.size());
    for (std::size_t i = 0; i < scores.size(); ++i) scores[i] = std::fabs(double{row.inner[i]});
    drop_smallest(scores, share_of(level_, scores.size()), drop);
  }

 private:
  double level_;
};

}  // namespace

extern const SparsitySystem kTop{
    .name = "top",
    .source = "The Lazy Neuron Phenomenon, arXiv:2210.06313",
    .level = "the share of each token's neurons to leave out",
    .needs_calibration = false,
    .dense_level = 0,
    .make = [](double level, const LayerNeurons&) -> std::unique_ptr<NeuronFilter> {
      return std::make_unique<TopFilter>(level);
    }};

}  // namespace winnow::metrics

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Each token keeps the fewest neurons that have a share of the whole mass, gate_j^2 E[up_j^2]: how
// many depends on the token. Fire-Together-Wire-Together's rule for the targets of its predictors,
// with the gate in the place of a predictor.
#include <algorithm>
#include <numeric>

#include "metrics/sparsity.h"

namespace winnow::metrics {
namespace {

class MassFilter final : public NeuronFilter {
 public:
  MassFilter(double kept, const LayerSample& sample)
      : dropped_(1 - kept), mean_square_up_(sample.mean_square_up) {}

  void choose(const NeuronRow& row, std::span<std::uint8_t> drop) const override {
    const std::vector<double>& up = mean_square_up_[index(row.expert)];
    std::vector<double> masses(drop.size());
    for (std::size_t j = 0; j < masses.size(); ++j) {
      masses[j] = double{row.gate[j]} * row.gate[j] * up[j];
    }
    std::vector<std::uint32_t> order(masses.size());
    std::iota(order.begin(), order.end(), 0U);
    std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
      return masses[a] != masses[b] ? masses[a] < masses[b] : a > b;
    });
    // From the smallest: with a share of 1 only masses of zero go, whatever the sums' rounding.
    double total = 0;
    for (const std::uint32_t j : order) total += masses[j];
    double sum = 0;
    for (const std::uint32_t j : order) {
      sum += masses[j];
      if (sum > dropped_ * total) return;
      drop[j] = 1;
    }
  }

 private:
  double dropped_;
  std::vector<std::vector<double>> mean_square_up_;  // [experts][width]
};

}  // namespace

extern const SparsitySystem kMass{
    .name = "mass",
    .source = "Fire Together Wire Together, arXiv:2110.08232",
    .level = "the share of each token's mass to keep",
    .needs_calibration = true,
    .dense_level = 1,
    .make = [](double level, const LayerNeurons& layer) -> std::unique_ptr<NeuronFilter> {
      return std::make_unique<MassFilter>(level, *layer.sample);
    }};

}  // namespace winnow::metrics

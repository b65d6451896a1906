// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The cumulative error of tail truncation of a layer's FFNs (Sparsing Law, arXiv:2411.02335): what
// leaving out all neurons up to an output size t takes from an FFN's output, relative to it.
#pragma once

#include <vector>

#include "metrics/sparsity.h"

namespace winnow::metrics {

/// CETT(t) = mean over tokens of |sum over n_i <= t of h_i W_i| / |sum over all i of h_i W_i|, with
/// n_i = |h_i| |W_i| and W_i the columns of the down projection. Every expert is an FFN of its own:
/// router weights do not count. Tokens whose output is zero are left out.
class CettCurve {
 public:
  /// From at most 256 of the layer's sampled rows, evenly spread; exact for those. Cost: four
  /// operations per element of down_proj and row.
  explicit CettCurve(const LayerNeurons& layer);

  /// CETT(0) is 0, CETT(infinity) 1 unless nothing was sampled. Rises with t, but for cancellation
  /// among columns that mean values hardly show.
  double at(double threshold) const;
  /// The largest threshold found by bisection whose CETT is at most `level`: 0 for a level of 0,
  /// infinity from 1 on.
  double threshold_of(double level) const;

 private:
  /// Of one token: rising sizes, and the relative error once each of them is left out.
  struct Steps {
    std::vector<double> sizes, errors;
  };
  static Steps steps_of(const LayerSample::Row& row, tensor::MatrixView<const float> columns,
                        const std::vector<double>& norms);

  std::vector<Steps> tokens_;
  double largest_ = 0;  // size of any neuron
};

}  // namespace winnow::metrics

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The feed-forward block of a dense layer: down(silu(gate(x)) * up(x)).
#pragma once

#include "engine/linear.h"
#include "engine/observer.h"
#include "engine/weights.h"

namespace winnow::engine {

class DenseFfn {
 public:
  /// x: normalised [tokens, hidden_size]; out: the same shape, overwritten.
  void forward(const Compute& compute, const DenseWeights& weights, LayerId layer,
               tensor::MatrixView<const float> x, tensor::MatrixView<float> out,
               Observer* observer);

 private:
  LinearInput input_;
  kernels::ActivationBuffer inner_codes_;
  tensor::Matrix<float> gate_, up_;
};

}  // namespace winnow::engine

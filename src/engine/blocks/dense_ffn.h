// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The feed-forward block of a dense layer: down(silu(gate(x)) * up(x)).
#pragma once

#include "engine/blocks/activated_gate.h"
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
  /// Shows the editor what `gate_` and `up_` hold, and makes the codes of what it leaves.
  void edit(const Compute& compute, LayerId layer, bool with_codes);

  LinearInput input_;
  kernels::ActivationBuffer inner_codes_;
  tensor::Matrix<float> gate_, up_;
  ActivatedGate activated_;  // only with an editor
};

}  // namespace winnow::engine

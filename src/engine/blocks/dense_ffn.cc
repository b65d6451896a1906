// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/blocks/dense_ffn.h"

namespace winnow::engine {

using model::Role;

void DenseFfn::forward(const Compute& compute, const DenseWeights& weights, LayerId layer,
                       tensor::MatrixView<const float> x, tensor::MatrixView<float> out,
                       Observer* observer) {
  const quant::PackedMatrix& gate = weights.matrix(compute.overrides, Role::kGateProj, layer);
  const quant::PackedMatrix& up = weights.matrix(compute.overrides, Role::kUpProj, layer);
  const quant::PackedMatrix& down = weights.matrix(compute.overrides, Role::kDownProj, layer);
  if (observer != nullptr) observer->on_input(Site::kFfnInput, layer, x);
  gate_ = tensor::Matrix<float>(x.rows, gate.rows);
  up_ = tensor::Matrix<float>(x.rows, up.rows);
  input_.assign(compute, x, wants_codes(gate) || wants_codes(up));
  multiply(compute, gate, input_, {}, gate_.view());
  multiply(compute, up, input_, {}, up_.view());
  compute.pool.run(x.rows, [&](std::size_t t, unsigned) {
    compute.kernels.silu_mul(gate_.row(t).data(), up_.row(t).data(), gate.rows);
  });
  if (observer != nullptr) observer->on_input(Site::kFfnInner, layer, gate_.view());
  inner_input_.assign(compute, gate_.view(), wants_codes(down));
  multiply(compute, down, inner_input_, {}, out);
}

}  // namespace winnow::engine

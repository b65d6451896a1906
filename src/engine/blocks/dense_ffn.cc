// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/blocks/dense_ffn.h"

#include <utility>

namespace winnow::engine {

using model::Role;

void DenseFfn::edit(const Compute& compute, LayerId layer, bool with_codes) {
  compute.inner_editor->edit(
      {layer, ExpertId{}, activated_.view(), std::as_const(up_).view(), gate_.view()},
      compute.pool);
  if (!with_codes) return;
  const auto codes = inner_codes_.stretch(0, gate_.rows(), gate_.cols());
  compute.pool.run(gate_.rows(), [&](std::size_t t, unsigned) {
    quantize_columns(compute, gate_.row(t), t, {0, gate_.cols()}, codes);
  });
}

void DenseFfn::forward(const Compute& compute, const DenseWeights& weights, LayerId layer,
                       tensor::MatrixView<const float> x, tensor::MatrixView<float> out,
                       Observer* observer) {
  const quant::CorrectedMatrix& gate = weights.matrix(compute.overrides, Role::kGateProj, layer);
  const quant::CorrectedMatrix& up = weights.matrix(compute.overrides, Role::kUpProj, layer);
  const quant::CorrectedMatrix& down = weights.matrix(compute.overrides, Role::kDownProj, layer);
  if (observer != nullptr) observer->on_input(Site::kFfnInput, layer, x);
  gate_.reshape(x.rows, gate.rows);
  up_.reshape(x.rows, up.rows);
  input_.assign(compute, x, wants_codes(gate) || wants_codes(up));
  if (wants_codes(down)) inner_codes_.resize(x.rows, gate.rows);
  const auto codes = inner_codes_.stretch(0, x.rows, gate.rows);
  const bool edited = compute.inner_editor != nullptr;
  if (edited) activated_.reshape(x.rows, gate.rows);
  {
    const OpTimer timer(compute.profile, Op::kGateUp);
    const AlignedParts parts(gate.rows, row_parts(gate.rows, compute.pool.size()));
    compute.pool.run(parts.count(), [&](std::size_t part, unsigned worker) {
      const os::Range rows = parts[part];
      multiply_rows(compute, gate, rows, input_.operand(), gate_.view(), worker);
      multiply_rows(compute, up, rows, input_.operand(), up_.view(), worker);
      for (std::size_t t = 0; t < x.rows; ++t) {
        float* inner = gate_.row(t).data() + rows.begin;
        if (edited) activated_.keep(compute, t, gate_.row(t), rows);
        compute.kernels.silu_mul(inner, up_.row(t).data() + rows.begin, rows.size());
        if (wants_codes(down) && !edited) quantize_columns(compute, gate_.row(t), t, rows, codes);
      }
    });
  }
  if (edited) edit(compute, layer, wants_codes(down));
  if (observer != nullptr) observer->on_input(Site::kFfnInner, layer, gate_.view());
  const OpTimer timer(compute.profile, Op::kDown);
  const Operand inner{std::as_const(gate_).view(), inner_codes_.view()};
  const std::size_t parts = row_parts(down.rows, compute.pool.size());
  compute.pool.run(parts, [&](std::size_t part, unsigned worker) {
    multiply_rows(compute, down, os::split(down.rows, parts, part), inner, out, worker);
  });
}

}  // namespace winnow::engine

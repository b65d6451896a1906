// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// silu(gate) by itself, which the fused product with up overwrites: kept for an InnerEditor only.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "engine/linear.h"
#include "os/thread_pool.h"
#include "tensor/matrix.h"

namespace winnow::engine {

class ActivatedGate {
 public:
  /// Room for [rows, width]; contents are undefined afterwards.
  void reshape(std::size_t rows, std::size_t width) {
    values_.reshape(rows, width);
    ones_.resize(std::max(ones_.size(), width), 1.0F);
  }
  /// Takes columns `cols` of the gate projections `gate` of `row`. Several threads may, for parts
  /// of their own.
  void keep(const Compute& compute, std::size_t row, std::span<const float> gate, os::Range cols) {
    float* const out = values_.row(row).data() + cols.begin;
    std::copy_n(gate.data() + cols.begin, cols.size(), out);
    compute.kernels.silu_mul(out, ones_.data(), cols.size());
  }
  tensor::MatrixView<const float> view() const { return values_.view(); }

 private:
  tensor::Matrix<float> values_;
  std::vector<float> ones_;
};

}  // namespace winnow::engine

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/linear.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace winnow::engine {
namespace {

// A part below this many rows costs more to hand out than to compute.
constexpr std::size_t kLeastRows = 16;

}  // namespace

std::size_t row_parts(std::size_t rows, unsigned threads) {
  const std::size_t wanted = threads == 1 ? 1 : std::size_t{threads} * 4;
  return std::clamp<std::size_t>(rows / kLeastRows, 1, wanted);
}

void LinearInput::assign(const Compute& compute, tensor::MatrixView<const float> x,
                         bool with_codes) {
  values_ = x;
  has_codes_ = with_codes;
  if (!with_codes) return;
  codes_.resize(x.rows, x.cols);
  const std::size_t parts = std::min<std::size_t>(x.rows, std::size_t{compute.pool.size()} * 4);
  compute.pool.run(parts, [&](std::size_t part, unsigned) {
    const os::Range range = os::split(x.rows, parts, part);
    for (std::size_t t = range.begin; t < range.end; ++t) {
      compute.kernels.quantize_activations(x.row(t).data(), x.cols, codes_.codes(t),
                                           codes_.scales(t), codes_.sums(t));
    }
  });
}

void LinearInput::gather(const Compute& compute, const LinearInput& from,
                         std::span<const std::uint32_t> tokens, bool with_values) {
  const std::size_t cols = from.values_.cols;
  if (gathered_.rows() < tokens.size() || gathered_.cols() != cols) {
    gathered_ = tensor::Matrix<float>(tokens.size(), cols);
  }
  values_ = gathered_.view().rows_from(0, tokens.size());
  has_codes_ = from.has_codes_;
  const kernels::QuantizedActivations source = from.codes_.view();
  if (has_codes_) codes_.resize(tokens.size(), cols);
  const std::size_t blocks = cols / kernels::kActivationBlock;
  const std::size_t groups = cols / kernels::kActivationSumGroup;
  const std::size_t parts =
      std::min<std::size_t>(tokens.size(), std::size_t{compute.pool.size()} * 4);
  compute.pool.run(parts, [&](std::size_t part, unsigned) {
    const os::Range range = os::split(tokens.size(), parts, part);
    for (std::size_t i = range.begin; i < range.end; ++i) {
      const std::size_t t = tokens[i];
      if (with_values) std::copy_n(from.values_.row(t).data(), cols, gathered_.row(i).data());
      if (!has_codes_) continue;
      std::copy_n(source.codes + t * cols, cols, codes_.codes(i));
      std::copy_n(source.scales + t * blocks, blocks, codes_.scales(i));
      std::copy_n(source.sums + t * groups, groups, codes_.sums(i));
    }
  });
}

void multiply_rows(const Compute& compute, const quant::PackedMatrix& w, std::size_t first_row,
                   std::size_t end_row, const LinearInput& x, std::size_t first_token,
                   tensor::MatrixView<float> y, unsigned worker) {
  std::byte* scratch = compute.scratch[worker].data();
  if (wants_codes(w)) {
    WINNOW_DCHECK(x.has_codes());
    compute.kernels.matmul_for(*w.codec)(w, first_row, end_row,
                                         x.codes().slice(first_token, y.rows), y, scratch);
  } else {
    compute.kernels.matmul_floats(w, first_row, end_row, x.values().rows_from(first_token, y.rows),
                                  y, scratch);
  }
}

void multiply(const Compute& compute, const quant::PackedMatrix& w, const LinearInput& x,
              std::span<const float> bias, tensor::MatrixView<float> y) {
  WINNOW_CHECK(w.cols == x.values().cols && y.cols == w.rows && y.rows == x.values().rows);
  const std::size_t parts = row_parts(w.rows, compute.pool.size());
  compute.pool.run(parts, [&](std::size_t part, unsigned worker) {
    const os::Range range = os::split(w.rows, parts, part);
    multiply_rows(compute, w, range.begin, range.end, x, 0, y, worker);
    if (bias.empty()) return;
    for (std::size_t t = 0; t < y.rows; ++t) {
      for (std::size_t r = range.begin; r < range.end; ++r) y.row(t)[r] += bias[r];
    }
  });
}

}  // namespace winnow::engine

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/linear.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace winnow::engine {
namespace {

// A product of fewer rows costs more to hand out than to compute.
constexpr std::size_t kLeastRows = 16;
// Parts for the threads to share. The first rows of a part wait for the memory, so parts are large;
// but while a thread that the system holds up finishes its part, the others wait.
constexpr std::size_t kPartsPerThread = 4;
constexpr std::size_t kMostRows = 512;

}  // namespace

std::size_t row_parts(std::size_t rows, unsigned threads) {
  const std::size_t shared = std::max(std::size_t{threads} * kPartsPerThread, rows / kMostRows);
  return std::clamp<std::size_t>(rows / kLeastRows, 1, threads == 1 ? 1 : shared);
}

void LinearInput::assign(const Compute& compute, tensor::MatrixView<const float> x,
                         bool with_codes) {
  values_ = x;
  has_codes_ = with_codes;
  if (!with_codes) return;
  const OpTimer timer(compute.profile, Op::kQuantize);
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

void multiply_rows(const Compute& compute, const quant::PackedMatrix& w, os::Range rows,
                   const Operand& x, tensor::MatrixView<float> y, unsigned worker) {
  std::byte* scratch = compute.scratch[worker].data();
  if (wants_codes(w)) {
    WINNOW_DCHECK(x.codes.tokens == y.rows && x.codes.cols == w.cols);
    compute.kernels.matmul_for (*w.codec)(w, rows.begin, rows.end, x.codes, y, scratch);
  } else {
    WINNOW_DCHECK(x.values.rows == y.rows && x.values.cols == w.cols);
    compute.kernels.matmul_floats(w, rows.begin, rows.end, x.values, y, scratch);
  }
}

AlignedParts::AlignedParts(std::size_t total, std::size_t wanted) : total_(total) {
  const std::size_t blocks = (total + kernels::kActivationBlock - 1) / kernels::kActivationBlock;
  count_ = std::clamp<std::size_t>(wanted, 1, blocks);
}

os::Range AlignedParts::operator[](std::size_t part) const {
  constexpr std::size_t kBlock = kernels::kActivationBlock;
  const os::Range blocks = os::split((total_ + kBlock - 1) / kBlock, count_, part);
  return {blocks.begin * kBlock, std::min(blocks.end * kBlock, total_)};
}

void quantize_columns(const Compute& compute, std::span<const float> x, std::size_t row,
                      os::Range cols, kernels::ActivationBuffer& out) {
  WINNOW_DCHECK(cols.begin % kernels::kActivationBlock == 0);
  WINNOW_DCHECK(cols.size() % kernels::kActivationBlock == 0);
  compute.kernels.quantize_activations(x.data() + cols.begin, cols.size(),
                                       out.codes(row) + cols.begin,
                                       out.scales(row) + cols.begin / kernels::kActivationBlock,
                                       out.sums(row) + cols.begin / kernels::kActivationSumGroup);
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

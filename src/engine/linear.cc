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

// A correction is computed for so many tokens and rows at a time.
constexpr std::size_t kCorrectedTokens = 32;
constexpr std::size_t kCorrectedRows = 128;

std::size_t whole_lines(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

/// What a correction needs of a worker's scratch: the kernels' own part comes first.
struct CorrectionScratch {
  std::size_t kernel, inner, product;  // bytes

  explicit CorrectionScratch(const quant::CorrectedMatrix& w)
      : kernel(whole_lines(std::max(kernels::matmul_scratch_bytes(w.left),
                                    kernels::matmul_scratch_bytes(w.right)))),
        inner(whole_lines(kCorrectedTokens * w.rank() * sizeof(float))),
        product(kCorrectedTokens * kCorrectedRows * sizeof(float)) {}
  std::size_t total() const { return kernel + inner + product; }
};

/// y += left (right x) for rows [rows.begin, rows.end) of y. Every part of the rows makes right x
/// again: rank / rows of the matrix's own work, for which no thread has to wait for another.
void add_correction(const Compute& compute, const quant::CorrectedMatrix& w, os::Range rows,
                    tensor::MatrixView<const float> x, tensor::MatrixView<float> y,
                    std::byte* scratch) {
  const CorrectionScratch sizes(w);
  auto* const inner = reinterpret_cast<float*>(scratch + sizes.kernel);
  auto* const product = reinterpret_cast<float*>(scratch + sizes.kernel + sizes.inner);
  for (std::size_t token = 0; token < x.rows; token += kCorrectedTokens) {
    const std::size_t tokens = std::min(kCorrectedTokens, x.rows - token);
    const tensor::MatrixView<float> inner_view{inner, tokens, w.rank(), w.rank()};
    compute.kernels.matmul_floats(w.right, 0, w.rank(), x.rows_from(token, tokens), inner_view,
                                  scratch);
    for (std::size_t row = rows.begin; row < rows.end; row += kCorrectedRows) {
      const std::size_t count = std::min(kCorrectedRows, rows.end - row);
      const quant::PackedMatrix left{w.left.codec, w.left.row(row), count, w.rank()};
      const tensor::MatrixView<float> out{product, tokens, count, count};
      compute.kernels.matmul_floats(left, 0, count, inner_view, out, scratch);
      for (std::size_t t = 0; t < tokens; ++t) {
        compute.kernels.axpy(1.0F, out.row(t).data(), y.row(token + t).data() + row, count);
      }
    }
  }
}

}  // namespace

std::size_t multiply_scratch_bytes(const quant::CorrectedMatrix& w) {
  const std::size_t own = kernels::matmul_scratch_bytes(w);
  return w.corrected() ? std::max(own, CorrectionScratch(w).total()) : own;
}

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

void multiply_rows(const Compute& compute, const quant::CorrectedMatrix& w, os::Range rows,
                   const Operand& x, tensor::MatrixView<float> y, unsigned worker) {
  std::byte* scratch = compute.scratch[worker].data();
  if (wants_codes(w)) {
    WINNOW_DCHECK(x.codes.tokens == y.rows && x.codes.cols == w.cols);
    compute.kernels.matmul_for (*w.codec)(w, rows.begin, rows.end, x.codes, y, scratch);
  } else {
    WINNOW_DCHECK(x.values.rows == y.rows && x.values.cols == w.cols);
    compute.kernels.matmul_floats(w, rows.begin, rows.end, x.values, y, scratch);
  }
  if (!w.corrected()) return;
  WINNOW_DCHECK(x.values.rows == y.rows && x.values.cols == w.cols);
  add_correction(compute, w, rows, x.values, y, scratch);
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
                      os::Range cols, const kernels::ActivationBuffer::Stretch& out) {
  WINNOW_DCHECK(cols.begin % kernels::kActivationBlock == 0);
  WINNOW_DCHECK(cols.size() % kernels::kActivationBlock == 0);
  const std::size_t at = row * out.cols + cols.begin;
  compute.kernels.quantize_activations(x.data() + cols.begin, cols.size(), out.codes + at,
                                       out.scales + at / kernels::kActivationBlock,
                                       out.sums + at / kernels::kActivationSumGroup);
}

void multiply(const Compute& compute, const quant::CorrectedMatrix& w, const LinearInput& x,
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

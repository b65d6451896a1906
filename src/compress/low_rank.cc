// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/low_rank.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <utility>

#include "base/error.h"

namespace winnow::compress {
namespace {

tensor::Matrix<double> widened(ConstMatrix matrix) {
  tensor::Matrix<double> result(matrix.rows, matrix.cols);
  for (std::size_t r = 0; r < matrix.rows; ++r) {
    std::copy(matrix.row(r).begin(), matrix.row(r).end(), result.row(r).begin());
  }
  return result;
}

/// L of the damped Hessian. A Gram matrix has eigenvalues of 0 or more but for rounding, so that a
/// ridge near the trace is always enough.
tensor::Matrix<double> whitening(const Hessian& hessian, double damping) {
  for (;; damping *= 10) {
    WINNOW_CHECK(damping > 0 && damping < 1e6);
    auto lower = lower_factor(hessian.dense(ridge_of(hessian, damping)).view());
    if (lower) return std::move(*lower);
  }
}

/// Sum of the squares of all singular values but the first `rank`, when some may be unknown.
double dropped_squares(tensor::MatrixView<const double> matrix, std::span<const double> values,
                       std::size_t rank) {
  double sum = 0;
  for (const double value : values.subspan(rank)) sum += value * value;
  if (values.size() == std::min(matrix.rows, matrix.cols)) return sum;
  double all = 0;
  for (std::size_t r = 0; r < matrix.rows; ++r) {
    for (const double value : matrix.row(r)) all += value * value;
  }
  for (const double value : values.first(rank)) all -= value * value;
  return std::max(all, 0.0);
}

}  // namespace

LowRank low_rank_correction(ConstMatrix error, const Hessian* hessian, double damping,
                            std::size_t rank) {
  WINNOW_CHECK(error.rows > 0 && error.cols > 0 && rank <= std::min(error.rows, error.cols));
  WINNOW_CHECK(hessian == nullptr || hessian->size() == error.cols);
  tensor::Matrix<double> white = widened(error);
  std::optional<tensor::Matrix<double>> lower;
  if (hessian != nullptr) {
    lower = whitening(*hessian, damping);
    white = wide_product(white.view(), lower->view());
  }
  SingularValues parts = leading_singular_values(white.view(), rank);
  if (lower) parts.right = solve_transposed(lower->view(), parts.right.view());
  LowRank result{tensor::Matrix<float>(error.rows, rank), tensor::Matrix<float>(rank, error.cols)};
  result.residual = dropped_squares(white.view(), parts.values, rank);
  for (std::size_t k = 0; k < rank; ++k) {
    const double share = std::sqrt(parts.values[k]);
    for (std::size_t r = 0; r < error.rows; ++r) {
      result.left.row(r)[k] = static_cast<float>(share * parts.left.row(r)[k]);
    }
    for (std::size_t j = 0; j < error.cols; ++j) {
      result.right.row(k)[j] = static_cast<float>(share * parts.right.row(j)[k]);
    }
  }
  return result;
}

}  // namespace winnow::compress

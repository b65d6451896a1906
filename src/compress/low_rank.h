// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What a matrix of low rank beside a quantised one can give back of its error (LoRC of
// ZeroQuant-V2, arXiv:2303.08302), and the same weighted with the inputs.
#pragma once

#include <cstddef>

#include "compress/hessian.h"
#include "compress/linear_algebra.h"

namespace winnow::compress {

/// left right, to be added to the decoded weights.
struct LowRank {
  tensor::Matrix<float> left;   ///< [rows, rank]
  tensor::Matrix<float> right;  ///< [rank, cols]
  /// tr(D (H + ridge) D^T) of what is left of the error, the sum of the squares of the dropped
  /// singular values; without a Hessian the plain squared error.
  double residual = 0;
};

/// The best approximation of `error` [rows, cols] = W - W' of that rank (at most the smaller side)
/// under the Hessian [cols, cols] of the inputs, by the singular values of error L, (H + ridge) = L
/// L^T; null: of error itself. damping: ridge relative to the mean of diag H, over 0. The singular
/// value is shared evenly by both factors. For ranks far below both sides the singular values are
/// those of `leading_singular_values`.
LowRank low_rank_correction(ConstMatrix error, const Hessian* hessian, double damping,
                            std::size_t rank);

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Rounds the columns of a matrix one after the other and lets the columns still to come make up for
// each error (GPTQ, arXiv:2210.17323), with the scales of a block searched on the weights as they
// are when its turn comes.
#pragma once

#include <span>

#include "compress/coded_matrix.h"
#include "compress/damped_hessian.h"
#include "compress/linear_algebra.h"
#include "compress/workers.h"

namespace winnow::compress {

enum class BlockScales {
  kSearch,  ///< `BlockGrid::fit` on the compensated weights
  /// That and a few neighbours of its block scales; the smallest error with feedback in the block.
  kSearchAround,
  kKeep,  ///< those that `out` holds
};

/// weights: [rows, n]; importance: [n], for the search of scales (see `Codec::encode`).
/// Fills all of `out` (with kKeep: its codes). Returns sum (w - q)^2 / U_jj^2 over all weights,
/// which is tr(dW (H + ridge) dW^T) but for rounding. Cost: rows * n^2 operations and the searches.
double round_with_feedback(ConstMatrix weights, const DampedHessian& hessian,
                           std::span<const float> importance, BlockScales scales, CodedMatrix& out,
                           const Workers& workers);

/// Searches the scales of every block by itself and takes the nearest codes: the codec's encoder.
void round_to_nearest(ConstMatrix weights, std::span<const float> importance, CodedMatrix& out,
                      const Workers& workers);

}  // namespace winnow::compress

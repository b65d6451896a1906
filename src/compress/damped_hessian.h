// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A Hessian prepared for the quantisation of the matrices that read its input: damped, ordered,
// inverted and factored once, then shared by all rows.
#pragma once

#include <cstddef>
#include <vector>

#include "compress/hessian.h"
#include "tensor/matrix.h"

namespace winnow::compress {

enum class ColumnOrder {
  kStorage,
  /// Blocks by falling sum of H_jj, columns within a block by falling H_jj: what matters most is
  /// rounded while most columns are left to make up for it (GPTQ's act-order, kept within blocks
  /// so that the scales of a block are chosen when its turn comes). Columns that are coded together
  /// stay together, by the sum of theirs. Ties keep storage order.
  kByImportance,
};

struct DampedHessian {
  /// H plus the ridge, in storage order; [n, n], symmetric.
  tensor::Matrix<float> h;
  /// Column at each place of the processing order; blocks stay together.
  std::vector<std::size_t> order;
  /// U of h^-1 = U^T U, rows and columns in processing order.
  tensor::Matrix<float> factor;
  /// By column in storage order: 1 / U_jj^2, what a squared error costs after the columns behind
  /// it in the order have made up for it as well as they can.
  std::vector<float> conditional;
  double ridge = 0;
};

/// damping: ridge relative to the mean of the diagonal, over 0; raised tenfold while the f64
/// factorisation fails. block_size divides the size of the Hessian. Cost: 2 n^3 / 3 operations.
/// coded_together: columns that are one step of the rounding (see `columns_coded_together`).
DampedHessian damp(const Hessian& hessian, double damping, std::size_t block_size,
                   ColumnOrder column_order, std::size_t coded_together = 1);

}  // namespace winnow::compress

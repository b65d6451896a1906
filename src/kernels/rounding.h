// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What the kernels of the Hessian quantiser work on. Rows of a weight matrix share H but nothing
// else, so kRoundedRows of them are rounded side by side: [columns, kRoundedRows] matrices, each
// column's values of all rows next to each other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/block_grid.h"
#include "tensor/matrix.h"

namespace winnow::kernels {

/// out(i, j) = (add ? out(i, j) : 0) + sum_t (scale a(i, t)) b(t, j), a chain of multiply-adds over
/// t in rising order; `out` overlaps neither factor.
struct FloatProduct {
  const float* a = nullptr;  ///< a(i, t) at a[i * row_stride + t * column_stride]
  std::size_t row_stride = 0;
  std::size_t column_stride = 0;
  tensor::MatrixView<const float> b;  ///< [k, n]
  tensor::MatrixView<float> out;      ///< [m, n]
  float scale = 1;
  bool add = false;
};

/// Rows of a tile.
inline constexpr std::size_t kRoundedRows = 16;

/// One sub-block in all rows of a tile, whose codes are to be chosen for given steps: twice over
/// its columns, each takes the level nearest to where L is least with the others as they stand.
struct SubBlockTrial {
  const quant::LevelRounder* rounder = nullptr;
  std::size_t size = 0;      ///< columns, at most quant::kSuperBlock
  const float* h = nullptr;  ///< the sub-block's square of H, rows `stride` apart
  std::size_t stride = 0;
  const float* gradients = nullptr;  ///< [size, kRoundedRows], G
  const float* values = nullptr;     ///< [size, kRoundedRows], as they stand
  const float* steps = nullptr;      ///< [kRoundedRows]
  const float* offsets = nullptr;    ///< [kRoundedRows]
};

/// What a trial would lead to.
struct SubBlockChoice {
  double changes[kRoundedRows];  ///< of L
  float values[quant::kSuperBlock * kRoundedRows];
  std::uint8_t codes[quant::kSuperBlock * kRoundedRows];
};

/// One block of columns, in the order of rounding, of all rows of a tile. Each column takes the
/// levels nearest to its targets, and its scaled errors are taken off the targets of the columns
/// after it (GPTQ, arXiv:2210.17323).
struct FeedbackBlock {
  const quant::LevelRounder* rounder = nullptr;
  std::size_t size = 0;           ///< columns, at most quant::kSuperBlock
  const float* factor = nullptr;  ///< the block's square of U, rows `stride` apart
  std::size_t stride = 0;
  const std::uint8_t* sub_blocks = nullptr;  ///< [size], of each column
  const float* steps = nullptr;              ///< [sub-blocks, kRoundedRows]
  const float* offsets = nullptr;
  float* targets = nullptr;       ///< [size, kRoundedRows], changed
  float* errors = nullptr;        ///< [size, kRoundedRows], over U_jj
  std::uint8_t* codes = nullptr;  ///< [size, kRoundedRows]
};

/// The moves that the weights of one row could make next, after one that adds `by` times `h_row` to
/// the gradient.
struct MoveSearch {
  std::size_t size = 0;  ///< weights
  const float* from = nullptr;
  float by = 0;
  const float* h_row = nullptr;
  const float* up = nullptr;        ///< what one level more adds to each weight; 0: not possible
  const float* down = nullptr;      ///< one level less
  const float* diagonal = nullptr;  ///< of H
  float* gradient = nullptr;        ///< written: from + by * h_row; may be `from`
};

}  // namespace winnow::kernels

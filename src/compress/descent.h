// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Improves a coded matrix step by step under L = tr(dW H dW^T): single codes, integers of
// sub-blocks, and the scales of blocks in one least-squares solution per row. A step is taken only
// when the exact change of L is negative. With G = dW H at hand, changing weight j by d changes L
// by 2 d G_j + d^2 H_jj, and G by d times row j of H.
#pragma once

#include <cstddef>
#include <functional>
#include <span>

#include "compress/coded_matrix.h"
#include "compress/linear_algebra.h"
#include "compress/workers.h"

namespace winnow::compress {

struct DescentOptions {
  /// Sweeps over all codes of a row in each round; a sweep that changes nothing is the last.
  int code_sweeps = 4;
  /// Sweeps over sub-blocks whose scale and minimum move together with all of their codes.
  int block_sweeps = 1;
  /// Whether sub-block integers are moved, and block scales refitted.
  bool integers = true;
  bool block_scales = true;
  /// Rounds of all of the above; they end early once one gains less than `least_gain` of L.
  int rounds = 3;
  double least_gain = 1e-3;
  /// Sweeps over chains of codes after the rounds, then all single codes and block scales once
  /// more; a sweep that changes nothing is the last.
  int chain_sweeps = 1;
};

/// weights: [rows, n], the originals; h: [n, n], symmetric; changes `out` (rows in parallel, the
/// result does not depend on the threads). Returns L afterwards, never above L before but for f32
/// rounding. Cost: rows * n^2 operations per round for G, up to 3 more for the refit, 5 for each
/// sweep over chains, 64 rows * n * sub-block size for one over blocks, n per changed code.
double descend(ConstMatrix weights, ConstMatrix h, const DescentOptions& options, CodedMatrix& out,
               const Workers& workers);

/// Writes the n quantised weights of a row. Called from any thread of the workers.
using RowDecoder = std::function<void(std::size_t row, std::span<float> out)>;

/// L of the whole matrix, in f64 from f32 products. h need not be positive.
double quadratic_loss(ConstMatrix weights, ConstMatrix h, const RowDecoder& decode_row,
                      const Workers& workers);

// ---- Rows, for the steps (row_steps.cc, block_steps.cc, chain_steps.cc, scale_refit.cc) ----

struct RowState {
  const kernels::Kernels* kernels = nullptr;  ///< borrowed
  std::size_t row = 0;
  std::span<float> values;    ///< [n], as decoded
  std::span<float> gradient;  ///< [n], G
};

/// Moves each weight to the level that lowers L most. Returns the change of L, 0 when none moved.
double sweep_codes(ConstMatrix h, RowState& state, CodedMatrix& out);

/// Moves two to four codes to neighbouring levels at once where that lowers L and no single move
/// does. Returns the change of L.
double sweep_chains(ConstMatrix h, RowState& state, CodedMatrix& out);

/// Gives each sub-block the neighbouring scale or minimum with which, its codes chosen anew, L is
/// lowest. states: of at most kernels::kRoundedRows rows. Returns the change of L over all of them.
double sweep_blocks(ConstMatrix h, std::span<RowState> states, CodedMatrix& out);

/// Moves the integer scale and the integer minimum of each sub-block, codes kept, to where L is
/// lowest. Returns the change of L.
double sweep_integers(ConstMatrix h, RowState& state, CodedMatrix& out);

/// `sweep_codes` for grids with a codebook: whole points and sign fields at a time.
double sweep_points(ConstMatrix h, RowState& state, CodedMatrix& out);

/// `sweep_integers` for grids with a codebook, whose integers are far apart: the two neighbours of
/// each are tried with the points chosen anew.
double sweep_point_scales(ConstMatrix h, RowState& state, CodedMatrix& out);

/// Decodes sub-block k anew after its codes or integers changed; returns the change of L.
double recode(ConstMatrix h, RowState& state, std::size_t k, const CodedMatrix& out);

/// Solves for all block scales and minimum scales of each row of a tile at once, integers and codes
/// kept (the least-squares normal equations in A H A^T), rounds them to f16, and keeps them where L
/// falls. states: [rows of the tile]. Returns the change of L over all of them.
double refit_block_scales(ConstMatrix h, std::span<RowState> states, CodedMatrix& out);

/// Adds `change` times row `column` of h to the gradient.
inline void add_to_gradient(ConstMatrix h, RowState& state, std::size_t column, float change) {
  state.kernels->axpy(change, h.data + column * h.row_stride, state.gradient.data(), h.cols);
}

}  // namespace winnow::compress

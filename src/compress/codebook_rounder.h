// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Chooses points of a codebook, signs included, for the weights of one sign field under a full
// quadratic form: candidates are ranked by its diagonal, the best few compared with all of it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "compress/linear_algebra.h"
#include "kernels/kernels.h"
#include "quant/block_grid.h"

namespace winnow::compress {

/// For grids with a codebook. Functions are const, so that threads can share it.
class CodebookRounder {
 public:
  static constexpr std::size_t kSize = quant::kSignGroup;

  /// `grid` and `kernels` outlive it.
  CodebookRounder(const quant::BlockGrid& grid, const kernels::Kernels& kernels)
      : grid_(grid), book_(*grid.codebook), kernels_(kernels) {}

  /// Codes q with small (t - s q)^T metric (t - s q). metric: [kSize, kSize], symmetric positive
  /// definite; target, codes: [kSize]. With a multiple of the identity: what the codec's encoder
  /// takes.
  void choose(ConstMatrix metric, const float* target, float step, std::uint8_t* codes) const;

  /// Moves the codes, a point or a whole sign field at a time, while the loss falls. gradient:
  /// [kSize], half the slope of the loss at the present values. Returns the change of the loss,
  /// 0 when nothing moved.
  double improve(ConstMatrix metric, const float* gradient, float step, std::uint8_t* codes) const;

 private:
  struct State;
  void try_points(ConstMatrix metric, std::size_t group, State& state) const;
  void try_single_weights(ConstMatrix metric, std::size_t group, State& state) const;
  quant::SignParity parity_of_others(std::size_t group, const State& state) const;

  const quant::BlockGrid& grid_;
  const quant::Codebook& book_;
  const kernels::Kernels& kernels_;
};

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Coordinate descent over the points of a codebook and the integers of their sub-blocks in one row.
#include <algorithm>
#include <cstdlib>

#include "compress/codebook_rounder.h"
#include "compress/descent.h"

namespace winnow::compress {
namespace {

constexpr std::size_t kSize = CodebookRounder::kSize;

/// A sub-block with another integer, beside the one in the matrix.
class Trial {
 public:
  Trial(ConstMatrix h, const RowState& state, std::size_t k, const CodedMatrix& out)
      : out_(out), first_(k * out.grid().sub_size), size_(out.grid().sub_size) {
    metric_ = {h.data + first_ * h.row_stride + first_, size_, size_, h.row_stride};
    std::copy_n(&state.values[first_], size_, values_);
    std::copy_n(&state.gradient[first_], size_, gradient_);
    std::copy_n(out.codes(state.row).data() + first_, size_, codes_);
  }

  /// The change of L with this step and the points chosen anew.
  double run(const CodebookRounder& rounder, float step) {
    double change = 0;
    for (std::size_t j = 0; j < size_; ++j) change += move(j, out_.value(step, 0.0F, codes_[j]));
    for (std::size_t at = 0; at < size_; at += kSize) {
      const ConstMatrix part{metric_.data + at * metric_.row_stride + at, kSize, kSize,
                             metric_.row_stride};
      if (!(rounder.improve(part, gradient_ + at, step, codes_ + at) < 0)) continue;
      for (std::size_t j = at; j < at + kSize; ++j) {
        change += move(j, out_.value(step, 0.0F, codes_[j]));
      }
    }
    return change;
  }
  const std::uint8_t* codes() const { return codes_; }

 private:
  double move(std::size_t j, float value) {
    const float moved = value - values_[j];
    if (moved == 0) return 0;
    const float* row = metric_.data + j * metric_.row_stride;
    const double change = double{moved} * (2.0 * gradient_[j] + double{moved} * row[j]);
    for (std::size_t k = 0; k < size_; ++k) gradient_[k] += moved * row[k];
    values_[j] = value;
    return change;
  }

  const CodedMatrix& out_;
  std::size_t first_;
  std::size_t size_;
  ConstMatrix metric_;
  float values_[quant::kSuperBlock];
  float gradient_[quant::kSuperBlock];
  std::uint8_t codes_[quant::kSuperBlock];
};

/// Gains below this share of what the sub-block's values cost are rounding noise of G.
double noise_of(ConstMatrix h, const RowState& state, std::size_t first, std::size_t size) {
  constexpr double kNoise = 1e-7;
  double energy = 0;
  for (std::size_t j = first; j < first + size; ++j) {
    energy += double{h.row(j)[j]} * state.values[j] * state.values[j];
  }
  return kNoise * energy;
}

double try_neighbours(ConstMatrix h, RowState& state, std::size_t k, const CodebookRounder& rounder,
                      CodedMatrix& out) {
  const quant::BlockGrid& grid = out.grid();
  std::int8_t& integer = out.scales(state.row)[k];
  const float scale = grid.scale_value(out.block_scales(state.row)[k / out.subs_per_block()]);
  double best = -noise_of(h, state, k * grid.sub_size, grid.sub_size);
  int chosen = integer;
  std::uint8_t codes[quant::kSuperBlock];
  for (const int candidate : {integer - grid.scales.step, integer + grid.scales.step}) {
    if (candidate < grid.scales.low || candidate > grid.scales.high) continue;
    Trial trial(h, state, k, out);
    const double change = trial.run(rounder, scale * static_cast<float>(candidate));
    if (!(change < best)) continue;
    best = change;
    chosen = candidate;
    std::copy_n(trial.codes(), grid.sub_size, codes);
  }
  if (chosen == integer) return 0;
  integer = static_cast<std::int8_t>(chosen);
  std::copy_n(codes, grid.sub_size, out.codes(state.row).data() + k * grid.sub_size);
  return recode(h, state, k, out);
}

}  // namespace

double sweep_points(ConstMatrix h, RowState& state, CodedMatrix& out) {
  const CodebookRounder rounder(out.grid(), *state.kernels);
  const auto codes = out.codes(state.row);
  double total = 0;
  for (std::size_t first = 0; first < h.cols; first += kSize) {
    const float step = out.step(state.row, first / out.grid().sub_size);
    const ConstMatrix metric{h.data + first * h.row_stride + first, kSize, kSize, h.row_stride};
    const double change =
        rounder.improve(metric, &state.gradient[first], step, codes.data() + first);
    if (!(change < 0)) continue;
    total += change;
    for (std::size_t j = first; j < first + kSize; ++j) {
      const float value = out.value(step, 0.0F, codes[j]);
      if (value == state.values[j]) continue;
      add_to_gradient(h, state, j, value - state.values[j]);
      state.values[j] = value;
    }
  }
  return total;
}

double sweep_point_scales(ConstMatrix h, RowState& state, CodedMatrix& out) {
  const CodebookRounder rounder(out.grid(), *state.kernels);
  double change = 0;
  for (std::size_t k = 0; k * out.grid().sub_size < h.cols; ++k) {
    change += try_neighbours(h, state, k, rounder, out);
  }
  return change;
}

}  // namespace winnow::compress

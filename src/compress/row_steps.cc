// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Coordinate descent over the codes and the sub-block integers of one row.
#include <algorithm>
#include <cmath>

#include "compress/descent.h"

namespace winnow::compress {
namespace {

/// Gains below this share of H_jj w^2 are rounding noise of G, and could make a sweep run in
/// circles.
constexpr double kRowNoise = 1e-7;

/// What one unit of an integer adds to each weight of its sub-block.
struct Direction {
  float unit[quant::kSuperBlock];
  double slope = 0;      // of L per unit, halved: sum u_j G_j
  double curvature = 0;  // u^T H u
};

void measure(ConstMatrix h, const RowState& state, std::size_t first, std::size_t size,
             Direction& direction) {
  direction.slope = direction.curvature = 0;
  for (std::size_t i = 0; i < size; ++i) {
    const float* const row = h.data + (first + i) * h.row_stride + first;
    float product = 0;
    for (std::size_t j = 0; j < size; ++j) product += row[j] * direction.unit[j];
    direction.curvature += double{product} * direction.unit[i];
    direction.slope += double{state.gradient[first + i]} * direction.unit[i];
  }
}

/// The integer in `range` with the lowest L along the direction; `current` when none is lower.
int best_integer(const Direction& direction, int current, quant::IntegerRange range) {
  if (!(direction.curvature > 0)) return current;
  const double wanted = std::clamp(current - direction.slope / direction.curvature,
                                   double(range.low), double(range.high));
  const int best =
      range.low + range.step * static_cast<int>(std::nearbyint((wanted - range.low) / range.step));
  const double units = best - current;
  const double change = units * (2 * direction.slope + units * direction.curvature);
  return change < -kRowNoise * std::fabs(direction.slope) ? best : current;
}

double move_scale(ConstMatrix h, RowState& state, std::size_t k, CodedMatrix& out) {
  const quant::BlockGrid& grid = out.grid();
  if (grid.scales.is_fixed()) return 0;
  const std::size_t first = k * grid.sub_size;
  const float scale = grid.scale_value(out.block_scales(state.row)[k / out.subs_per_block()]);
  const auto codes = out.codes(state.row);
  Direction direction;
  for (std::size_t j = 0; j < grid.sub_size; ++j) {
    direction.unit[j] = scale * static_cast<float>(grid.levels[codes[first + j]]);
  }
  measure(h, state, first, grid.sub_size, direction);
  std::int8_t& integer = out.scales(state.row)[k];
  const int best = best_integer(direction, integer, grid.scales);
  if (best == integer) return 0;
  integer = static_cast<std::int8_t>(best);
  return recode(h, state, k, out);
}

double move_min(ConstMatrix h, RowState& state, std::size_t k, CodedMatrix& out) {
  const quant::BlockGrid& grid = out.grid();
  if (grid.mins.is_fixed()) return 0;
  const float scale =
      quant::BlockGrid::min_value(out.block_mins(state.row)[k / out.subs_per_block()]);
  Direction direction;
  std::fill_n(direction.unit, grid.sub_size, -scale);
  measure(h, state, k * grid.sub_size, grid.sub_size, direction);
  std::int8_t& integer = out.mins(state.row)[k];
  const int best = best_integer(direction, integer, grid.mins);
  if (best == integer) return 0;
  integer = static_cast<std::int8_t>(best);
  return recode(h, state, k, out);
}

}  // namespace

double recode(ConstMatrix h, RowState& state, std::size_t k, const CodedMatrix& out) {
  const std::size_t size = out.grid().sub_size;
  const std::size_t first = k * size;
  const float step = out.step(state.row, k);
  const float offset = out.offset(state.row, k);
  const auto codes = out.codes(state.row);
  double change = 0;
  for (std::size_t j = first; j < first + size; ++j) {
    const float value = out.value(step, offset, codes[j]);
    const float moved = value - state.values[j];
    if (moved == 0) continue;
    change += double{moved} * (2.0 * state.gradient[j] + double{moved} * h.row(j)[j]);
    add_to_gradient(h, state, j, moved);
    state.values[j] = value;
  }
  return change;
}

double sweep_codes(ConstMatrix h, RowState& state, CodedMatrix& out) {
  const quant::BlockGrid& grid = out.grid();
  if (grid.codebook != nullptr) return sweep_points(h, state, out);
  const quant::LevelRounder rounder(grid);
  const auto codes = out.codes(state.row);
  double total = 0;
  for (std::size_t k = 0; k * grid.sub_size < h.cols; ++k) {
    const float step = out.step(state.row, k);
    const float offset = out.offset(state.row, k);
    const float inverse = quant::BlockGrid::inverse_step(step);
    for (std::size_t j = k * grid.sub_size; j < (k + 1) * grid.sub_size; ++j) {
      const float curvature = h.data[j * h.row_stride + j];
      const float target = state.values[j] - state.gradient[j] / curvature;
      const std::uint8_t code = rounder.nearest((target + offset) * inverse);
      if (code == codes[j]) continue;
      const float value = out.value(step, offset, code);
      const float moved = value - state.values[j];
      const double change = double{moved} * (2.0 * state.gradient[j] + double{moved} * curvature);
      if (!(change < -kRowNoise * double{curvature} * moved * moved)) continue;
      codes[j] = code;
      state.values[j] = value;
      add_to_gradient(h, state, j, moved);
      total += change;
    }
  }
  return total;
}

double sweep_integers(ConstMatrix h, RowState& state, CodedMatrix& out) {
  double change = 0;
  if (out.grid().codebook != nullptr) return sweep_point_scales(h, state, out);
  for (std::size_t k = 0; k * out.grid().sub_size < h.cols; ++k) {
    change += move_scale(h, state, k, out);
    change += move_min(h, state, k, out);
  }
  return change;
}

}  // namespace winnow::compress

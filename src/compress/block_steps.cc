// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Descent over the scale and the minimum of one sub-block with all of its codes chosen anew: a step
// that moving them one at a time, codes kept, cannot take.
#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "base/error.h"
#include "compress/descent.h"

namespace winnow::compress {
namespace {

using kernels::kRoundedRows;
using kernels::SubBlockChoice;

/// As in row_steps.cc.
constexpr double kBlockNoise = 1e-7;

/// What a sub-block stores; the block's own scales change only where it has one sub-block.
struct Stored {
  std::int8_t scale;
  std::int8_t min;
  std::uint16_t block_scale;
  std::uint16_t block_min;
};

/// One change of what a sub-block stores: of its integers, or else of the block's own scales.
struct Change {
  int scale_step = 0;
  int min_step = 0;
  float factor = 1;  ///< of the block's scale
  float shift = 0;   ///< of its minimum, in steps
};

std::vector<Change> changes_of(const quant::BlockGrid& grid) {
  std::vector<Change> changes;
  if (!grid.scales.is_fixed()) {
    for (const int step : {-1, 1}) {
      changes.push_back({step, 0});
      if (grid.mins.is_fixed()) continue;
      changes.push_back({0, step});
      changes.push_back({step, step});
    }
    return changes;
  }
  static constexpr float kHalves[] = {0.85F, 0.93F, 0.97F, 1.03F, 1.07F, 1.15F};
  static constexpr float kPowers[] = {0.5F, 2.0F};
  for (const float factor : grid.has_half_scale ? std::span<const float>(kHalves) : kPowers) {
    changes.push_back({0, 0, factor, 0});
  }
  for (const float shift : {-0.4F, -0.2F, 0.2F, 0.4F}) {
    if (grid.has_mins()) changes.push_back({0, 0, 1, shift});
  }
  return changes;
}

/// The sub-blocks at one place of all rows of a tile, one after the other; all rows try the same
/// change at a time.
class BlockSweep {
 public:
  BlockSweep(ConstMatrix h, std::span<RowState> states, CodedMatrix& out)
      : h_(h),
        states_(states),
        out_(out),
        grid_(out.grid()),
        rounder_(grid_),
        changes_(changes_of(grid_)),
        gradients_(grid_.sub_size, kRoundedRows),
        values_(grid_.sub_size, kRoundedRows) {}

  double run() {
    double total = 0;
    for (std::size_t k = 0; k * grid_.sub_size < h_.cols; ++k) total += improve(k);
    return total;
  }

 private:
  Stored stored(std::size_t row, std::size_t k) {
    const std::size_t block = k / out_.subs_per_block();
    return {out_.scales(row)[k], out_.mins(row)[k], out_.block_scales(row)[block],
            out_.block_mins(row)[block]};
  }
  void store(std::size_t row, std::size_t k, const Stored& in) {
    const std::size_t block = k / out_.subs_per_block();
    out_.scales(row)[k] = in.scale;
    out_.mins(row)[k] = in.min;
    out_.block_scales(row)[block] = in.block_scale;
    out_.block_mins(row)[block] = in.block_min;
  }
  float step(const Stored& in) const {
    return grid_.scale_value(in.block_scale) * static_cast<float>(in.scale);
  }
  static float offset(const Stored& in) {
    return quant::BlockGrid::min_value(in.block_min) * static_cast<float>(in.min);
  }

  /// Nothing where an integer would leave its range.
  std::optional<Stored> changed(const Stored& now, const Change& change) const {
    Stored result = now;
    if (grid_.scales.is_fixed()) {
      // Other scales about the middle of the range, other minima.
      const auto middle = 0.5F * static_cast<float>(grid_.levels.front() + grid_.levels.back());
      const float about = grid_.has_half_scale ? middle * (change.factor - 1) : 0.0F;
      result.block_scale = grid_.nearest_scale(change.factor * step(now));
      if (!grid_.has_mins()) return result;
      result.block_min = quant::nearest_half(offset(now) + (about + change.shift) * step(now));
      return result;
    }
    const int scale = now.scale + change.scale_step;
    const int min = now.min + change.min_step;
    if (scale < grid_.scales.low || scale > grid_.scales.high) return std::nullopt;
    if (min < grid_.mins.low || min > grid_.mins.high) return std::nullopt;
    result.scale = static_cast<std::int8_t>(scale);
    result.min = static_cast<std::int8_t>(min);
    return result;
  }

  /// Sub-block k of all rows.
  double improve(std::size_t k) {
    const std::size_t first = k * grid_.sub_size;
    load(first);
    for (std::size_t r = 0; r < states_.size(); ++r) {
      now_[r] = best_[r] = stored(states_[r].row, k);
      found_.changes[r] = 0;
    }
    for (const Change& change : changes_) attempt(first, change);
    double total = 0;
    for (std::size_t r = 0; r < states_.size(); ++r) {
      if (!(found_.changes[r] < -kBlockNoise * energy(first, r))) continue;
      store(states_[r].row, k, best_[r]);
      take(first, r);
      total += found_.changes[r];
    }
    return total;
  }

  void load(std::size_t first) {
    for (std::size_t r = 0; r < states_.size(); ++r) {
      for (std::size_t i = 0; i < grid_.sub_size; ++i) {
        gradients_.row(i)[r] = states_[r].gradient[first + i];
        values_.row(i)[r] = states_[r].values[first + i];
      }
    }
  }

  void attempt(std::size_t first, const Change& change) {
    std::optional<Stored> candidates[kRoundedRows];
    float steps[kRoundedRows] = {};
    float offsets[kRoundedRows] = {};
    for (std::size_t r = 0; r < states_.size(); ++r) {
      candidates[r] = changed(now_[r], change);
      if (!candidates[r]) continue;
      steps[r] = step(*candidates[r]);
      offsets[r] = offset(*candidates[r]);
    }
    states_[0].kernels->try_sub_block(
        {&rounder_, grid_.sub_size, h_.data + first * h_.row_stride + first, h_.row_stride,
         gradients_.flat().data(), values_.flat().data(), steps, offsets},
        trial_);
    for (std::size_t r = 0; r < states_.size(); ++r) {
      if (!candidates[r] || !(trial_.changes[r] < found_.changes[r])) continue;
      best_[r] = *candidates[r];
      found_.changes[r] = trial_.changes[r];
      for (std::size_t at = r; at < grid_.sub_size * kRoundedRows; at += kRoundedRows) {
        found_.values[at] = trial_.values[at];
        found_.codes[at] = trial_.codes[at];
      }
    }
  }

  /// What the changes of weights cost by themselves: the scale of rounding noise.
  double energy(std::size_t first, std::size_t r) const {
    double sum = 0;
    for (std::size_t i = 0; i < grid_.sub_size && found_.changes[r] < 0; ++i) {
      const double moved = double{found_.values[i * kRoundedRows + r]} - values_.row(i)[r];
      sum += moved * moved * h_.row(first + i)[first + i];
    }
    return sum;
  }

  void take(std::size_t first, std::size_t r) {
    RowState& state = states_[r];
    for (std::size_t i = 0; i < grid_.sub_size; ++i) {
      out_.codes(state.row)[first + i] = found_.codes[i * kRoundedRows + r];
      const float value = found_.values[i * kRoundedRows + r];
      const float moved = value - state.values[first + i];
      if (moved != 0) add_to_gradient(h_, state, first + i, moved);
      state.values[first + i] = value;
    }
  }

  ConstMatrix h_;
  std::span<RowState> states_;
  CodedMatrix& out_;
  const quant::BlockGrid& grid_;
  quant::LevelRounder rounder_;
  std::vector<Change> changes_;
  tensor::Matrix<float> gradients_;  // [sub_size, kRoundedRows], as the values: of one sub-block
  tensor::Matrix<float> values_;
  Stored now_[kRoundedRows];
  Stored best_[kRoundedRows];
  SubBlockChoice trial_;
  SubBlockChoice found_;
};

}  // namespace

double sweep_blocks(ConstMatrix h, std::span<RowState> states, CodedMatrix& out) {
  WINNOW_CHECK(!states.empty() && states.size() <= kRoundedRows);
  if (out.grid().codebook != nullptr) return 0;  // not every code may stand alone
  return BlockSweep(h, states, out).run();
}

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Descent over the scale and the minimum of one sub-block with all of its codes chosen anew: a step
// that moving them one at a time, codes kept, cannot take.
#include <algorithm>
#include <cmath>
#include <vector>

#include "compress/descent.h"

namespace winnow::compress {
namespace {

/// As in row_steps.cc.
constexpr double kNoise = 1e-7;
/// Times each code of a candidate is chosen, the others as they stand.
constexpr int kPasses = 2;

/// What a sub-block stores; the block's own scales change only where it has one sub-block.
struct Stored {
  std::int8_t scale;
  std::int8_t min;
  std::uint16_t block_scale;
  std::uint16_t block_min;
};

class BlockSweep {
 public:
  BlockSweep(ConstMatrix h, RowState& state, CodedMatrix& out)
      : h_(h), state_(state), out_(out), grid_(out.grid()), rounder_(grid_) {}

  double run() {
    double total = 0;
    for (std::size_t k = 0; k * grid_.sub_size < h_.cols; ++k) total += improve(k);
    return total;
  }

 private:
  /// Codes and values of a sub-block under other parameters.
  struct Trial {
    double change = 0;
    std::uint8_t codes[quant::kSuperBlock];
    float values[quant::kSuperBlock];
  };

  Stored stored(std::size_t k) {
    const std::size_t block = k / out_.subs_per_block();
    return {out_.scales(state_.row)[k], out_.mins(state_.row)[k],
            out_.block_scales(state_.row)[block], out_.block_mins(state_.row)[block]};
  }
  void store(std::size_t k, const Stored& in) {
    const std::size_t block = k / out_.subs_per_block();
    out_.scales(state_.row)[k] = in.scale;
    out_.mins(state_.row)[k] = in.min;
    out_.block_scales(state_.row)[block] = in.block_scale;
    out_.block_mins(state_.row)[block] = in.block_min;
  }

  double improve(std::size_t k) {
    const Stored now = stored(k);
    Stored best = now;
    Trial best_trial;
    candidates(k, now);
    for (const Stored& candidate : candidates_) {
      store(k, candidate);
      Trial trial;
      choose_codes(k, trial);
      if (!(trial.change < best_trial.change)) continue;
      best = candidate;
      best_trial = trial;
    }
    store(k, best);
    const std::size_t first = k * grid_.sub_size;
    double scale = 0;  // of rounding noise
    for (std::size_t i = 0; i < grid_.sub_size && best_trial.change < 0; ++i) {
      const double moved = double{best_trial.values[i]} - state_.values[first + i];
      scale += moved * moved * h_.row(first + i)[first + i];
    }
    if (!(best_trial.change < -kNoise * scale)) {
      store(k, now);
      return 0;
    }
    take(first, best_trial);
    return best_trial.change;
  }

  void candidates(std::size_t k, const Stored& now) {
    candidates_.clear();
    const auto add = [&](int scale_step, int min_step) {
      const int scale = now.scale + scale_step;
      const int min = now.min + min_step;
      if (scale < grid_.scales.low || scale > grid_.scales.high) return;
      if (min < grid_.mins.low || min > grid_.mins.high) return;
      candidates_.push_back({static_cast<std::int8_t>(scale), static_cast<std::int8_t>(min),
                             now.block_scale, now.block_min});
    };
    if (grid_.scales.is_fixed()) {
      add_block_scales(k, now);
      return;
    }
    for (const int step : {-1, 1}) {
      add(step, 0);
      if (grid_.mins.is_fixed()) continue;
      add(0, step);
      add(step, step);
    }
  }

  /// For blocks of one sub-block: other scales about the middle of the range, other minima.
  void add_block_scales(std::size_t k, const Stored& now) {
    const float step = out_.step(state_.row, k);
    const float offset = out_.offset(state_.row, k);
    const auto add = [&](float new_step, float new_offset) {
      Stored candidate = now;
      candidate.block_scale = grid_.nearest_scale(new_step);
      if (grid_.has_mins()) candidate.block_min = quant::nearest_half(new_offset);
      candidates_.push_back(candidate);
    };
    const auto middle = 0.5F * static_cast<float>(grid_.levels.front() + grid_.levels.back());
    for (const float factor : {0.85F, 0.93F, 0.97F, 1.03F, 1.07F, 1.15F}) {
      if (!grid_.has_half_scale) break;
      add(factor * step, offset + middle * (factor - 1) * step);
    }
    if (!grid_.has_half_scale) {
      add(0.5F * step, offset);
      add(2.0F * step, offset);
    }
    for (const float share : {-0.4F, -0.2F, 0.2F, 0.4F}) {
      if (grid_.has_mins()) add(step, offset + share * step);
    }
  }

  /// Each weight in turn takes the level that is best with the others as they stand.
  void choose_codes(std::size_t k, Trial& trial) {
    const std::size_t first = k * grid_.sub_size;
    const float step = out_.step(state_.row, k);
    const float offset = out_.offset(state_.row, k);
    const float inverse = quant::BlockGrid::inverse_step(step);
    float gradient[quant::kSuperBlock];
    std::copy_n(state_.gradient.data() + first, grid_.sub_size, gradient);
    std::copy_n(state_.values.data() + first, grid_.sub_size, trial.values);
    for (int pass = 0; pass < kPasses; ++pass) {
      for (std::size_t i = 0; i < grid_.sub_size; ++i) {
        const float* const row = h_.data + (first + i) * h_.row_stride + first;
        const float target = trial.values[i] - gradient[i] / row[i];
        trial.codes[i] = rounder_.nearest((target + offset) * inverse);
        const float value = out_.value(step, offset, trial.codes[i]);
        const float moved = value - trial.values[i];
        if (moved == 0) continue;
        trial.change += double{moved} * (2.0 * gradient[i] + double{moved} * row[i]);
        trial.values[i] = value;
        for (std::size_t j = 0; j < grid_.sub_size; ++j) gradient[j] += moved * row[j];
      }
    }
  }

  void take(std::size_t first, const Trial& trial) {
    for (std::size_t i = 0; i < grid_.sub_size; ++i) {
      out_.codes(state_.row)[first + i] = trial.codes[i];
      const float moved = trial.values[i] - state_.values[first + i];
      if (moved != 0) add_to_gradient(h_, state_, first + i, moved);
      state_.values[first + i] = trial.values[i];
    }
  }

  ConstMatrix h_;
  RowState& state_;
  CodedMatrix& out_;
  const quant::BlockGrid& grid_;
  quant::LevelRounder rounder_;
  std::vector<Stored> candidates_;
};

}  // namespace

double sweep_blocks(ConstMatrix h, RowState& state, CodedMatrix& out) {
  if (out.grid().codebook != nullptr) return 0;  // not every code may stand alone
  return BlockSweep(h, state, out).run();
}

}  // namespace winnow::compress

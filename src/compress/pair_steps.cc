// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Coordinate descent over pairs of codes of one row. Where the inputs of two weights go together,
// moving one code alone raises the loss and moving the other against it lowers it again, so that
// single moves end in a local minimum.
#include <algorithm>
#include <vector>

#include "base/error.h"
#include "compress/descent.h"

namespace winnow::compress {
namespace {

/// As in row_steps.cc.
constexpr double kNoise = 1e-7;
/// Minima are taken in so many lanes, which a compiler turns into vectors without reordering sums.
constexpr std::size_t kLanes = 8;

class PairSweep {
 public:
  PairSweep(ConstMatrix h, RowState& state, CodedMatrix& out)
      : h_(h), state_(state), out_(out), up_(h.cols), down_(h.cols), diagonal_(h.cols) {
    WINNOW_CHECK(h.cols % kLanes == 0);  // so are the blocks of all layouts
    for (std::size_t j = 0; j < h.cols; ++j) {
      diagonal_[j] = h.data[j * h.row_stride + j];
      set_moves(j);
    }
  }

  double run() {
    double total = 0;
    for (std::size_t j = 0; j < h_.cols; ++j) total += move_with_partner(j);
    return total;
  }

 private:
  /// What a step to the next higher and the next lower level adds to weight j; 0 at the ends.
  void set_moves(std::size_t j) {
    const auto& levels = out_.grid().levels;
    const std::uint8_t code = out_.codes(state_.row)[j];
    const std::size_t k = j / out_.grid().sub_size;
    const float step = out_.step(state_.row, k);
    const float offset = out_.offset(state_.row, k);
    const float here = state_.values[j];
    up_[j] = code + 1U < levels.size() ? out_.value(step, offset, code + 1) - here : 0.0F;
    down_[j] = code > 0 ? out_.value(step, offset, code - 1) - here : 0.0F;
  }

  float cost(std::size_t j, float gradient, float move) const {
    return move * (2 * gradient + move * diagonal_[j]);
  }

  /// The smallest cost of any move once weight j has moved by `move`. That of j itself is among
  /// them, and undoes the first move: it lets no pair pass that does not lower L.
  float smallest_after(std::size_t j, float move) const {
    const float* const row = h_.data + j * h_.row_stride;
    const float* const gradient = state_.gradient.data();
    float least[kLanes] = {};
    for (std::size_t first = 0; first < h_.cols; first += kLanes) {
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        const std::size_t k = first + lane;
        const float twice = 2 * (gradient[k] + move * row[k]);
        const float up = up_[k] * (twice + up_[k] * diagonal_[k]);
        const float down = down_[k] * (twice + down_[k] * diagonal_[k]);
        const float lower = up < down ? up : down;
        least[lane] = lower < least[lane] ? lower : least[lane];
      }
    }
    return *std::min_element(least, least + kLanes);
  }

  double move_with_partner(std::size_t j) {
    const float up = cost(j, state_.gradient[j], up_[j]);
    const float down = cost(j, state_.gradient[j], down_[j]);
    const bool upwards = down_[j] == 0 || (up_[j] != 0 && up < down);
    const float move = upwards ? up_[j] : down_[j];
    if (move == 0) return 0;
    const float first = upwards ? up : down;
    if (!(first + smallest_after(j, move) < 0)) return 0;
    const std::size_t partner = best_partner(j, move);
    if (partner == h_.cols) return 0;
    const float gradient = state_.gradient[partner] + move * h_.row(j)[partner];
    const float partner_up = cost(partner, gradient, up_[partner]);
    const float partner_down = cost(partner, gradient, down_[partner]);
    const bool partner_upwards = partner_up < partner_down;
    const double change = double{first} + double{partner_upwards ? partner_up : partner_down};
    const double scale = double{diagonal_[j]} * move * move;
    if (!(change < -kNoise * scale)) return 0;
    apply(j, upwards);
    apply(partner, partner_upwards);
    return change;
  }

  /// The weight other than j with the cheapest move; cols when none has one.
  std::size_t best_partner(std::size_t j, float move) const {
    const auto row = h_.row(j);
    std::size_t best = h_.cols;
    float least = 0;
    for (std::size_t k = 0; k < h_.cols; ++k) {
      if (k == j) continue;
      const float gradient = state_.gradient[k] + move * row[k];
      const float lower = std::min(cost(k, gradient, up_[k]), cost(k, gradient, down_[k]));
      if (!(lower < least)) continue;
      least = lower;
      best = k;
    }
    return best;
  }

  void apply(std::size_t j, bool upwards) {
    std::uint8_t& code = out_.codes(state_.row)[j];
    code = static_cast<std::uint8_t>(upwards ? code + 1 : code - 1);
    const float move = upwards ? up_[j] : down_[j];
    add_to_gradient(h_, state_, j, move);
    const std::size_t k = j / out_.grid().sub_size;
    state_.values[j] = out_.value(out_.step(state_.row, k), out_.offset(state_.row, k), code);
    set_moves(j);
  }

  ConstMatrix h_;
  RowState& state_;
  CodedMatrix& out_;
  std::vector<float> up_;
  std::vector<float> down_;
  std::vector<float> diagonal_;
};

}  // namespace

double sweep_pairs(ConstMatrix h, RowState& state, CodedMatrix& out) {
  return PairSweep(h, state, out).run();
}

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Descent over short chains of codes of one row. Where the inputs of some weights go together,
// moving one code alone raises the loss and moving others against it lowers it again, so that
// single moves end in a local minimum. A chain begins with the cheaper move of a weight and goes on
// with the best move of any other (as Lin and Kernighan's search for tours does); it is made as
// soon as its sum is below zero.
#include <array>

#include "compress/descent.h"

namespace winnow::compress {
namespace {

/// As in row_steps.cc.
constexpr double kChainNoise = 1e-7;
constexpr std::size_t kLongestChain = 4;
/// A chain of three or more is followed while its sum is below this share of its first move.
constexpr double kPromising = 0.5;

class ChainSweep {
 public:
  ChainSweep(ConstMatrix h, RowState& state, CodedMatrix& out)
      : h_(h),
        state_(state),
        out_(out),
        up_(h.cols),
        down_(h.cols),
        diagonal_(h.cols),
        gradient_(h.cols) {
    for (std::size_t j = 0; j < h.cols; ++j) {
      diagonal_[j] = h.data[j * h.row_stride + j];
      set_moves(j);
    }
  }

  double run() {
    double total = 0;
    for (std::size_t j = 0; j < h_.cols; ++j) total += follow(j);
    return total;
  }

 private:
  struct Move {
    std::size_t weight = 0;
    bool upwards = false;
    float by = 0;
    float cost = 0;
  };

  /// What a step to the next higher and the next lower level adds to weight j; 0 at the ends.
  void set_moves(std::size_t j) {
    const auto& levels = out_.grid().levels;
    const std::uint8_t code = out_.codes(state_.row)[j];
    const std::size_t k = j / out_.grid().sub_size;
    const float step = out_.step(state_.row, k);
    const float offset = out_.offset(state_.row, k);
    const auto to = [&](int level) {
      return out_.value(step, offset, static_cast<std::uint8_t>(level)) - state_.values[j];
    };
    up_[j] = code + 1U < levels.size() ? to(code + 1) : 0.0F;
    down_[j] = code > 0 ? to(code - 1) : 0.0F;
  }

  /// The cheaper move of weight j that is one.
  Move cheapest(std::size_t j, float gradient) const {
    const auto cost = [&](float move) { return move * (2 * gradient + move * diagonal_[j]); };
    const float up = cost(up_[j]);
    const float down = cost(down_[j]);
    const bool upwards = down_[j] == 0 || (up_[j] != 0 && up < down);
    return {j, upwards, upwards ? up_[j] : down_[j], upwards ? up : down};
  }

  /// Adds a move to the gradient of the chain; the best move of any weight after it.
  Move next_move(const Move& move, const float* from) {
    const std::size_t best = state_.kernels->cheapest_move(
        {h_.cols, from, move.by, h_.data + move.weight * h_.row_stride, up_.data(), down_.data(),
         diagonal_.data(), gradient_.data()});
    return best == h_.cols ? Move{} : cheapest(best, gradient_[best]);
  }

  /// The chain that begins with weight j; returns the change of L.
  double follow(std::size_t j) {
    std::array<Move, kLongestChain> chain;
    chain[0] = cheapest(j, state_.gradient[j]);
    if (chain[0].by == 0) return 0;
    const double scale = double{diagonal_[j]} * chain[0].by * chain[0].by;
    double sum = chain[0].cost;
    std::size_t length = 1;
    const float* from = state_.gradient.data();
    while (!(sum < -kChainNoise * scale) && length < kLongestChain) {
      leave_out(chain[length - 1]);
      const Move next = next_move(chain[length - 1], from);
      if (!(next.cost < 0)) break;
      chain[length++] = next;
      sum += next.cost;
      if (!(sum < kPromising * chain[0].cost)) break;
      from = gradient_.data();
    }
    for (std::size_t i = 0; i < length; ++i) set_moves(chain[i].weight);
    if (!(sum < -kChainNoise * scale)) return 0;
    for (std::size_t i = 0; i < length; ++i) make(chain[i]);
    return sum;
  }

  void leave_out(const Move& move) { up_[move.weight] = down_[move.weight] = 0; }

  void make(const Move& move) {
    const std::size_t j = move.weight;
    std::uint8_t& code = out_.codes(state_.row)[j];
    code = static_cast<std::uint8_t>(move.upwards ? code + 1 : code - 1);
    add_to_gradient(h_, state_, j, move.by);
    const std::size_t k = j / out_.grid().sub_size;
    state_.values[j] = out_.value(out_.step(state_.row, k), out_.offset(state_.row, k), code);
    set_moves(j);
  }

  ConstMatrix h_;
  RowState& state_;
  CodedMatrix& out_;
  tensor::AlignedVector<float> up_;
  tensor::AlignedVector<float> down_;
  tensor::AlignedVector<float> diagonal_;
  tensor::AlignedVector<float> gradient_;  // with the moves of the chain so far
};

}  // namespace

double sweep_chains(ConstMatrix h, RowState& state, CodedMatrix& out) {
  if (out.grid().codebook != nullptr) return 0;  // not every code may stand alone
  return ChainSweep(h, state, out).run();
}

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/descent.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "base/error.h"

namespace winnow::compress {
namespace {

/// Rows that share the matrix products with H.
constexpr std::size_t kDescentRows = kernels::kRoundedRows;

class DescentTile {
 public:
  DescentTile(ConstMatrix weights, ConstMatrix h, const DescentOptions& options, CodedMatrix& out,
              const kernels::Kernels& kernels)
      : weights_(weights), h_(h), options_(options), out_(out), kernels_(kernels) {}

  double run(std::size_t first) {
    const std::size_t count = std::min(kDescentRows, weights_.rows - first);
    values_ = tensor::Matrix<float>(count, h_.cols);
    gradients_ = tensor::Matrix<float>(count, h_.cols);
    std::vector<RowState> states(count);
    for (std::size_t r = 0; r < count; ++r) {
      states[r] = {&kernels_, first + r, values_.row(r), gradients_.row(r)};
    }
    double loss = measure(states);
    for (int round = 0; round < options_.rounds; ++round) {
      const double change = run_round(states);
      if (!(-change > options_.least_gain * loss)) break;
      loss += change;
    }
    if (options_.chain_sweeps > 0) finish(states);
    return measure(states);
  }

 private:
  /// G from scratch, and L of the tile.
  double measure(std::vector<RowState>& states) {
    tensor::Matrix<float> errors(states.size(), h_.cols);
    for (std::size_t r = 0; r < states.size(); ++r) {
      out_.decode_row(states[r].row, states[r].values);
      const auto original = weights_.row(states[r].row);
      for (std::size_t j = 0; j < h_.cols; ++j) {
        errors.row(r)[j] = states[r].values[j] - original[j];
      }
    }
    product(kernels_, errors.view(), h_, gradients_.view());
    double loss = 0;
    for (std::size_t i = 0; i < errors.flat().size(); ++i) {
      loss += double{errors.flat()[i]} * gradients_.flat()[i];
    }
    return loss;
  }

  /// states: of a row, or of all rows of the tile.
  template <typename Sweep, typename States>
  double repeated(const Sweep& sweep, int most, States&& states) {
    double change = 0;
    for (int i = 0; i < most; ++i) {
      const double gained = sweep(h_, states, out_);
      change += gained;
      if (gained == 0) break;
    }
    return change;
  }

  double run_round(std::vector<RowState>& states) {
    double change = 0;
    for (RowState& state : states) change += repeated(sweep_codes, options_.code_sweeps, state);
    change += repeated(sweep_blocks, options_.block_sweeps, std::span(states));
    for (RowState& state : states) {
      if (options_.integers) change += sweep_integers(h_, state, out_);
    }
    if (options_.block_scales) change += refit_block_scales(h_, states, out_);
    return change;
  }

  /// Chains cost the most, so they come last; one made may free single codes again.
  void finish(std::vector<RowState>& states) {
    for (RowState& state : states) {
      repeated(sweep_chains, options_.chain_sweeps, state);
      repeated(sweep_codes, options_.code_sweeps, state);
    }
    if (options_.block_scales) refit_block_scales(h_, states, out_);
  }

  ConstMatrix weights_;
  ConstMatrix h_;
  const DescentOptions& options_;
  CodedMatrix& out_;
  const kernels::Kernels& kernels_;
  tensor::Matrix<float> values_;
  tensor::Matrix<float> gradients_;
};

}  // namespace

double descend(ConstMatrix weights, ConstMatrix h, const DescentOptions& options, CodedMatrix& out,
               const Workers& workers) {
  WINNOW_CHECK(weights.cols == h.cols && weights.cols == out.cols());
  const std::size_t tiles = (weights.rows + kDescentRows - 1) / kDescentRows;
  std::vector<double> losses(tiles);
  workers.run(tiles, [&](std::size_t tile, unsigned) {
    losses[tile] =
        DescentTile(weights, h, options, out, workers.kernels()).run(tile * kDescentRows);
  });
  return std::accumulate(losses.begin(), losses.end(), 0.0);
}

double quadratic_loss(ConstMatrix weights, ConstMatrix h, const RowDecoder& decode_row,
                      const Workers& workers) {
  const std::size_t tiles = (weights.rows + kDescentRows - 1) / kDescentRows;
  std::vector<double> losses(tiles);
  workers.run(tiles, [&](std::size_t tile, unsigned) {
    const std::size_t first = tile * kDescentRows;
    const std::size_t count = std::min(kDescentRows, weights.rows - first);
    tensor::Matrix<float> errors(count, h.cols);
    tensor::Matrix<float> products(count, h.cols);
    for (std::size_t r = 0; r < count; ++r) {
      decode_row(first + r, errors.row(r));
      const auto original = weights.row(first + r);
      for (std::size_t j = 0; j < h.cols; ++j) errors.row(r)[j] -= original[j];
    }
    product(workers.kernels(), errors.view(), h, products.view());
    for (std::size_t i = 0; i < errors.flat().size(); ++i) {
      losses[tile] += double{errors.flat()[i]} * products.flat()[i];
    }
  });
  return std::accumulate(losses.begin(), losses.end(), 0.0);
}

}  // namespace winnow::compress

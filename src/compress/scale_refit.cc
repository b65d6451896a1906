// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// All block scales of a row by least squares under the full Hessian. A row is w' = A^T theta:
// theta holds the scale and, where the layout has minima, the minimum scale of every block; a row
// of A holds what one unit of it adds to the weights (integer times level, or minus the integer).
// A change x of theta lowers L most where (A H A^T) x = -A G. A H is a matrix product per block,
// shared by the rows of a tile, which is where the time goes.
#include <cmath>
#include <vector>

#include "compress/descent.h"

namespace winnow::compress {
namespace {

class TileRefit {
 public:
  TileRefit(ConstMatrix h, std::span<RowState> states, CodedMatrix& out)
      : h_(h),
        states_(states),
        out_(out),
        kinds_(out.grid().has_mins() ? 2 : 1),
        size_(out.grid().block_size),
        blocks_(out.blocks_per_row()),
        patterns_(states.size() * kinds_, h.cols),
        normal_(states.size() * unknowns(), unknowns()),
        moved_(states.size(), h.cols),
        curved_(states.size(), h.cols) {}

  double run() {
    for (std::size_t r = 0; r < states_.size(); ++r) fill_patterns(r);
    for (std::size_t block = 0; block < blocks_; ++block) {
      for (std::size_t kind = 0; kind < kinds_; ++kind) add_normal_rows(block, kind);
    }
    for (std::size_t r = 0; r < states_.size(); ++r) propose(r);
    product(*states_[0].kernels, moved_.view(), h_, curved_.view());
    double change = 0;
    for (std::size_t r = 0; r < states_.size(); ++r) change += accept(r);
    return change;
  }

 private:
  std::size_t unknowns() const { return blocks_ * kinds_; }
  std::span<float> pattern(std::size_t r, std::size_t kind) {
    return patterns_.row(kind * states_.size() + r);
  }

  void fill_patterns(std::size_t r) {
    const std::size_t row = states_[r].row;
    const std::size_t sub_size = out_.grid().sub_size;
    const float unit = out_.grid().scale_value(quant::nearest_half(1.0F));
    const auto codes = out_.codes(row);
    for (std::size_t j = 0; j < h_.cols; ++j) {
      const float integer = unit * static_cast<float>(out_.scales(row)[j / sub_size]);
      pattern(r, 0)[j] = integer * static_cast<float>(out_.grid().levels[codes[j]]);
      if (kinds_ == 2) pattern(r, 1)[j] = -static_cast<float>(out_.mins(row)[j / sub_size]);
    }
  }

  /// Rows (block, kind) of A H A^T for all rows of the tile.
  void add_normal_rows(std::size_t block, std::size_t kind) {
    const std::size_t first = block * size_;
    const ConstMatrix part{pattern(0, kind).data() + first, states_.size(), size_, h_.cols};
    product(*states_[0].kernels, part, h_.rows_from(first, size_), curved_.view());
    for (std::size_t r = 0; r < states_.size(); ++r) {
      const auto curved = curved_.row(r);
      const auto normal = normal_.row(r * unknowns() + block * kinds_ + kind);
      for (std::size_t i = 0; i < unknowns(); ++i) {
        normal[i] = dot(curved, pattern(r, i % kinds_), i / kinds_);
      }
    }
  }

  /// Over one block.
  double dot(std::span<const float> a, std::span<const float> b, std::size_t block) const {
    double sum = 0;
    for (std::size_t j = block * size_; j < (block + 1) * size_; ++j) sum += double{a[j]} * b[j];
    return sum;
  }

  /// New scales of a row, in `theta_`, and what they change, in `moved_`.
  void propose(std::size_t r) {
    const std::size_t p = unknowns();
    const tensor::MatrixView<double> normal{normal_.row(r * p).data(), p, p, p};
    std::vector<double> slope(p);
    for (std::size_t i = 0; i < p; ++i) {
      slope[i] = -dot(states_[r].gradient, pattern(r, i % kinds_), i / kinds_);
      // A block of zeros has no curvature and keeps its scale; elsewhere the ridge is far below the
      // f16 step of the scales.
      double& diagonal = normal.row(i)[i];
      diagonal = diagonal > 0 ? diagonal * (1 + 1e-6) : 1.0;
    }
    theta_.push_back(current(r));
    if (const auto solution = solve_symmetric(normal, slope)) {
      round_to_halves(normal, *solution, theta_[r]);
    }
    swap_scales(r);
    out_.decode_row(states_[r].row, moved_.row(r));
    for (std::size_t j = 0; j < h_.cols; ++j) moved_.row(r)[j] -= states_[r].values[j];
  }

  /// Moves each stored scale by its part of the solution, rounded to f16. The rounding errors of a
  /// scale and a minimum shift whole blocks alike, so they are traded against each other: a few
  /// sweeps in which each unknown takes the f16 that is best for the others as they stand.
  static void round_to_halves(tensor::MatrixView<double> normal,
                              const std::vector<double>& solution,
                              std::vector<std::uint16_t>& theta) {
    constexpr int kSweeps = 4;
    const std::size_t p = solution.size();
    std::vector<double> error(p);  // of the rounded unknowns
    std::vector<double> ideal(p);
    for (std::size_t i = 0; i < p; ++i) {
      ideal[i] = double{tensor::half_to_float(theta[i])} + solution[i];
      theta[i] = quant::nearest_half(static_cast<float>(ideal[i]));
      error[i] = double{tensor::half_to_float(theta[i])} - ideal[i];
    }
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
      for (std::size_t i = 0; i < p; ++i) {
        double coupling = 0;
        for (std::size_t k = 0; k < p; ++k) coupling += k == i ? 0.0 : normal.row(i)[k] * error[k];
        const double wanted = ideal[i] - coupling / normal.row(i)[i];
        theta[i] = quant::nearest_half(static_cast<float>(wanted));
        error[i] = double{tensor::half_to_float(theta[i])} - ideal[i];
      }
    }
  }

  std::vector<std::uint16_t> current(std::size_t r) {
    std::vector<std::uint16_t> theta(unknowns());
    for (std::size_t i = 0; i < theta.size(); ++i) theta[i] = stored(r, i);
    return theta;
  }
  std::uint16_t& stored(std::size_t r, std::size_t i) {
    const std::size_t row = states_[r].row;
    return i % kinds_ == 0 ? out_.block_scales(row)[i / kinds_] : out_.block_mins(row)[i / kinds_];
  }
  /// Puts the proposed scales into the matrix and the old ones into `theta_`, or back.
  void swap_scales(std::size_t r) {
    for (std::size_t i = 0; i < unknowns(); ++i) std::swap(theta_[r][i], stored(r, i));
  }

  double accept(std::size_t r) {
    const auto moved = moved_.row(r);
    const auto curved = curved_.row(r);
    RowState& state = states_[r];
    double change = 0;
    for (std::size_t j = 0; j < h_.cols; ++j) {
      change += double{moved[j]} * (2.0 * state.gradient[j] + curved[j]);
    }
    if (!(change < 0)) {
      swap_scales(r);
      return 0;
    }
    out_.decode_row(state.row, state.values);
    for (std::size_t j = 0; j < h_.cols; ++j) state.gradient[j] += curved[j];
    return change;
  }

  ConstMatrix h_;
  std::span<RowState> states_;
  CodedMatrix& out_;
  std::size_t kinds_;  // unknowns per block
  std::size_t size_;
  std::size_t blocks_;
  tensor::Matrix<float> patterns_;  // [kinds * rows of the tile, n]
  tensor::Matrix<double> normal_;   // [rows of the tile * unknowns, unknowns]
  tensor::Matrix<float> moved_;     // [rows of the tile, n]
  tensor::Matrix<float> curved_;    // a product with h, [rows of the tile, n]
  std::vector<std::vector<std::uint16_t>> theta_;
};

}  // namespace

double refit_block_scales(ConstMatrix h, std::span<RowState> states, CodedMatrix& out) {
  if (!out.grid().has_half_scale) return 0;  // powers of two: neighbours are a factor of 2 away
  return TileRefit(h, states, out).run();
}

}  // namespace winnow::compress

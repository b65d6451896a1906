// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Layout: kFeedbackRows rows of weights are worked on together, one lane each, so that the update
// of a column by a rounding error is a multiply-subtract of whole vectors. Columns are in
// processing order. A block of columns is brought up to date with the errors of all earlier blocks
// by one matrix product when its turn comes (each element of U is read once per tile); within the
// block, every column updates the rest of it at once.
#include "compress/error_feedback.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <vector>

#include "base/error.h"
#include "compress/codebook_rounder.h"

namespace winnow::compress {
namespace {

/// Lanes of a tile. The tail of a matrix leaves lanes empty (weights of zero).
constexpr std::size_t kFeedbackRows = kernels::kRoundedRows;

/// Block scales near those that were searched.
struct Neighbour {
  float factor;     ///< of the scale
  float shift = 0;  ///< of the minimum, in steps
};

/// The scales themselves first, so that they win ties.
std::span<const Neighbour> neighbours(const quant::BlockGrid& grid) {
  static constexpr Neighbour kHalves[] = {{1},     {0.92F},    {0.96F},  {1.04F},
                                          {1.08F}, {1, -0.3F}, {1, 0.3F}};
  static constexpr Neighbour kPowers[] = {{1}, {0.5F}, {2}};
  if (!grid.has_half_scale) return kPowers;
  return std::span(kHalves).first(grid.has_mins() ? 7 : 5);
}

class FeedbackTile {
 public:
  FeedbackTile(ConstMatrix weights, const DampedHessian& hessian, std::span<const float> importance,
               BlockScales scales, CodedMatrix& out, const kernels::Kernels& kernels)
      : weights_(weights),
        hessian_(hessian),
        importance_(importance),
        scales_(scales),
        out_(out),
        kernels_(kernels),
        rounder_(out.grid()),
        size_(out.grid().block_size),
        target_(size_, kFeedbackRows),
        errors_(weights.cols, kFeedbackRows),
        steps_(out.subs_per_block(), kFeedbackRows),
        offsets_(out.subs_per_block(), kFeedbackRows),
        codes_(size_ * kFeedbackRows),
        sub_blocks_(size_) {
    if (out.grid().codebook != nullptr) codebook_.emplace(out.grid(), kernels_);
  }

  /// Squared scaled errors of the tile's rows from `first` on.
  void run(std::size_t first, std::span<double> losses) {
    first_ = first;
    count_ = std::min(kFeedbackRows, weights_.rows - first);
    for (std::size_t place = 0; place < weights_.cols; place += size_) run_block(place);
    for (std::size_t r = 0; r < count_; ++r) {
      double sum = 0;
      for (std::size_t j = 0; j < weights_.cols; ++j) sum += square(errors_.row(j)[r]);
      losses[first + r] = sum;
    }
  }

 private:
  static double square(double x) { return x * x; }

  void run_block(std::size_t place) {
    const std::size_t block = hessian_.order[place] / size_;
    load_targets(place);
    for (std::size_t r = 0; r < count_ && scales_ != BlockScales::kKeep; ++r) {
      search_scales(place, block, r);
    }
    if (codebook_) {  // its codes take too long to be chosen for every neighbour
      round_points(place, block);
      return;
    }
    for (std::size_t i = 0; i < size_; ++i) {
      const std::size_t sub = hessian_.order[place + i] % size_ / out_.grid().sub_size;
      sub_blocks_[i] = static_cast<std::uint8_t>(sub);
    }
    if (scales_ == BlockScales::kSearchAround) try_neighbours(place, block);
    round_block(place, block);
    for (std::size_t r = 0; r < count_; ++r) {
      const auto codes = out_.codes(first_ + r);
      for (std::size_t i = 0; i < size_; ++i) {
        codes[hessian_.order[place + i]] = codes_[i * kFeedbackRows + r];
      }
    }
  }

  void load_scales(std::size_t block) {
    for (std::size_t r = 0; r < count_; ++r) {
      for (std::size_t k = 0; k < out_.subs_per_block(); ++k) {
        const std::size_t sub = block * out_.subs_per_block() + k;
        steps_.row(k)[r] = out_.step(first_ + r, sub);
        offsets_.row(k)[r] = out_.offset(first_ + r, sub);
      }
    }
  }

  /// Errors and codes of the block under its scales; uses the targets up.
  void round_block(std::size_t place, std::size_t block) {
    load_scales(block);
    kernels_.feed_back({&rounder_, size_, hessian_.factor.row(place).data() + place, weights_.cols,
                        sub_blocks_.data(), steps_.flat().data(), offsets_.flat().data(),
                        target_.flat().data(), errors_.row(place).data(), codes_.data()});
  }

  /// The same where codes come from a codebook, several at a time.
  void round_points(std::size_t place, std::size_t block) {
    load_scales(block);
    for (std::size_t i = 0; i < size_; ++i) {
      if (i % columns_coded_together(out_.grid()) == 0) choose_codes(place, i);
      measure_column(place, i);
      update_block(place, i);
    }
  }

  /// A block's own two scales, as stored.
  struct Scales {
    std::uint16_t scale = 0;
    std::uint16_t min = 0;
  };

  /// Leaves each row's block with the scales that round with the smallest error, all lanes trying
  /// the same neighbour at a time.
  void try_neighbours(std::size_t place, std::size_t block) {
    std::vector<Scales> searched(count_);
    for (std::size_t r = 0; r < count_; ++r) {
      searched[r] = {out_.block_scales(first_ + r)[block], out_.block_mins(first_ + r)[block]};
    }
    std::vector<Scales> best = searched;
    double least[kFeedbackRows];
    std::fill_n(least, kFeedbackRows, std::numeric_limits<double>::infinity());
    const tensor::Matrix<float> targets = target_.clone();
    for (const Neighbour& neighbour : neighbours(out_.grid())) {
      for (std::size_t r = 0; r < count_; ++r) set_scales(r, block, moved(searched[r], neighbour));
      round_block(place, block);
      for (std::size_t r = 0; r < count_; ++r) {
        double error = 0;
        for (std::size_t i = 0; i < size_; ++i) error += square(errors_.row(place + i)[r]);
        if (!(error < least[r])) continue;
        least[r] = error;
        best[r] = {out_.block_scales(first_ + r)[block], out_.block_mins(first_ + r)[block]};
      }
      std::copy(targets.flat().begin(), targets.flat().end(), target_.flat().begin());
    }
    for (std::size_t r = 0; r < count_; ++r) set_scales(r, block, best[r]);
  }

  void set_scales(std::size_t r, std::size_t block, const Scales& scales) {
    out_.block_scales(first_ + r)[block] = scales.scale;
    out_.block_mins(first_ + r)[block] = scales.min;
  }

  /// One sub-block keeps the middle of its range; more share a minimum that scales with them.
  Scales moved(const Scales& from, const Neighbour& neighbour) const {
    const quant::BlockGrid& grid = out_.grid();
    const float scale = grid.scale_value(from.scale);
    Scales result{grid.nearest_scale(scale * neighbour.factor), from.min};
    if (!grid.has_mins()) return result;
    float min = quant::BlockGrid::min_value(from.min);
    if (out_.subs_per_block() == 1) {
      const auto middle = 0.5F * static_cast<float>(grid.levels.front() + grid.levels.back());
      min += scale * (middle * (neighbour.factor - 1) + neighbour.shift);
    } else {
      min *= neighbour.factor + 0.1F * neighbour.shift;
    }
    result.min = quant::nearest_half(min);
    return result;
  }

  /// The block's weights with the errors of all earlier blocks made up for.
  void load_targets(std::size_t place) {
    std::fill(target_.flat().begin(), target_.flat().end(), 0.0F);
    for (std::size_t r = 0; r < count_; ++r) {
      const auto row = weights_.row(first_ + r);
      for (std::size_t i = 0; i < size_; ++i) target_.row(i)[r] = row[hessian_.order[place + i]];
    }
    if (place == 0) return;
    const std::size_t n = weights_.cols;
    const ConstMatrix above{hessian_.factor.flat().data() + place, place, size_, n};
    subtract_transposed_product(kernels_, above, errors_.view().rows_from(0, place),
                                target_.view());
  }

  void search_scales(std::size_t place, std::size_t block, std::size_t r) {
    float stored_order[quant::kSuperBlock];
    for (std::size_t i = 0; i < size_; ++i) {
      stored_order[hessian_.order[place + i] - block * size_] = target_.row(i)[r];
    }
    quant::BlockParameters parameters;
    out_.grid().fit(stored_order, importance_.data() + block * size_, parameters);
    out_.set_block(first_ + r, block, parameters);
  }

  /// Codes of the columns from the i-th on that are coded together, for what an error there costs
  /// once all later columns have made up for it: with U_g the part of U among these columns,
  /// (t - q)^T (U_g^T U_g)^-1 (t - q).
  void choose_codes(std::size_t place, std::size_t i) {
    constexpr std::size_t kSize = CodebookRounder::kSize;
    const std::size_t first = hessian_.order[place + i];
    const std::size_t k = first % size_ / out_.grid().sub_size;
    const tensor::Matrix<float> metric = conditional_metric(place + i);
    for (std::size_t r = 0; r < count_; ++r) {
      float target[kSize];
      for (std::size_t j = 0; j < kSize; ++j) target[j] = target_.row(i + j)[r];
      codebook_->choose(metric.view(), target, steps_.row(k)[r],
                        out_.codes(first_ + r).data() + first);
    }
  }

  /// (U_g^T U_g)^-1 = V V^T, V the inverse of the upper triangle U_g.
  tensor::Matrix<float> conditional_metric(std::size_t place) const {
    constexpr std::size_t kSize = CodebookRounder::kSize;
    double inverse[kSize][kSize] = {};
    for (std::size_t i = kSize; i-- > 0;) {
      const float* row = hessian_.factor.row(place + i).data() + place;
      for (std::size_t j = i; j < kSize; ++j) {
        double sum = i == j ? 1.0 : 0.0;
        for (std::size_t k = i + 1; k <= j; ++k) sum -= double{row[k]} * inverse[k][j];
        inverse[i][j] = sum / row[i];
      }
    }
    tensor::Matrix<float> metric(kSize, kSize);
    for (std::size_t i = 0; i < kSize; ++i) {
      for (std::size_t j = 0; j < kSize; ++j) {
        double sum = 0;
        for (std::size_t k = std::max(i, j); k < kSize; ++k) sum += inverse[i][k] * inverse[j][k];
        metric.row(i)[j] = static_cast<float>(sum);
      }
    }
    return metric;
  }

  void measure_column(std::size_t place, std::size_t i) {
    const std::size_t column = hessian_.order[place + i];
    const std::size_t k = column % size_ / out_.grid().sub_size;
    const float inverse_diagonal = 1.0F / hessian_.factor.row(place + i)[place + i];
    const auto errors = errors_.row(place + i);
    for (std::size_t r = 0; r < count_; ++r) {
      const std::uint8_t code = out_.codes(first_ + r)[column];
      const float value = out_.value(steps_.row(k)[r], offsets_.row(k)[r], code);
      errors[r] = (target_.row(i)[r] - value) * inverse_diagonal;
    }
  }

  void update_block(std::size_t place, std::size_t i) {
    const float* const factor = hessian_.factor.row(place + i).data() + place;
    float errors[kFeedbackRows];
    std::copy_n(errors_.row(place + i).data(), kFeedbackRows, errors);
    float* target = target_.row(i).data() + kFeedbackRows;
    for (std::size_t later = i + 1; later < size_; ++later, target += kFeedbackRows) {
      const float u = factor[later];
      for (std::size_t r = 0; r < kFeedbackRows; ++r) target[r] -= errors[r] * u;
    }
  }

  ConstMatrix weights_;
  const DampedHessian& hessian_;
  std::span<const float> importance_;
  BlockScales scales_;
  CodedMatrix& out_;
  const kernels::Kernels& kernels_;
  quant::LevelRounder rounder_;
  std::optional<CodebookRounder> codebook_;
  std::size_t size_;
  std::size_t first_ = 0;
  std::size_t count_ = 0;
  tensor::Matrix<float> target_;  // [block_size, kFeedbackRows]
  tensor::Matrix<float> errors_;  // [n, kFeedbackRows], scaled by 1 / U_jj; empty lanes stay zero
  tensor::Matrix<float> steps_;   // [sub-blocks of a block, kFeedbackRows]
  tensor::Matrix<float> offsets_;
  std::vector<std::uint8_t> codes_;       // [block_size, kFeedbackRows], in the order of rounding
  std::vector<std::uint8_t> sub_blocks_;  // [block_size], of each column in that order
};

}  // namespace

double round_with_feedback(ConstMatrix weights, const DampedHessian& hessian,
                           std::span<const float> importance, BlockScales scales, CodedMatrix& out,
                           const Workers& workers) {
  WINNOW_CHECK(weights.cols == out.cols() && weights.rows == out.rows());
  std::vector<double> losses(weights.rows);
  workers.run((weights.rows + kFeedbackRows - 1) / kFeedbackRows, [&](std::size_t tile, unsigned) {
    FeedbackTile(weights, hessian, importance, scales, out, workers.kernels())
        .run(tile * kFeedbackRows, losses);
  });
  return std::accumulate(losses.begin(), losses.end(), 0.0);
}

void round_to_nearest(ConstMatrix weights, std::span<const float> importance, CodedMatrix& out,
                      const Workers& workers) {
  const std::size_t size = out.grid().block_size;
  workers.run(weights.rows, [&](std::size_t row, unsigned) {
    for (std::size_t b = 0; b < out.blocks_per_row(); ++b) {
      quant::BlockParameters parameters;
      out.grid().fit(weights.row(row).data() + b * size, importance.data() + b * size, parameters);
      out.set_block(row, b, parameters);
    }
  });
}

}  // namespace winnow::compress

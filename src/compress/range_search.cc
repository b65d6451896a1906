// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/range_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"
#include "compress/error_feedback.h"

namespace winnow::compress {
namespace {

constexpr int kFactors = 11;  // of a range: 1, 0.95, .. 0.5
constexpr std::size_t kSearchedRows = 16;

float factor(int i) { return 1.0F - 0.05F * static_cast<float>(i); }

/// Real-valued parameters of a sub-block.
struct Range {
  float step = 0;
  float offset = 0;
};

class ClippedBlock {
 public:
  ClippedBlock(CodedMatrix& out, std::span<const float> importance)
      : out_(out), grid_(out.grid()), rounder_(grid_), importance_(importance) {}

  void run(std::span<const float> weights, std::size_t row, std::size_t block) {
    const std::size_t subs = out_.subs_per_block();
    std::vector<Range> ranges;
    for (std::size_t k = block * subs; k < (block + 1) * subs; ++k) {
      const std::size_t first = k * grid_.sub_size;
      const auto x = weights.subspan(first, grid_.sub_size);
      const auto w = importance_.subspan(first, grid_.sub_size);
      ranges.push_back(grid_.has_mins() ? best_affine(x, w) : best_symmetric(x, w));
    }
    store(ranges, row, block);
    for (std::size_t k = block * subs; k < (block + 1) * subs; ++k) {
      const float step = out_.step(row, k);
      const float offset = out_.offset(row, k);
      const float inverse = quant::BlockGrid::inverse_step(step);
      for (std::size_t j = k * grid_.sub_size; j < (k + 1) * grid_.sub_size; ++j) {
        out_.codes(row)[j] = rounder_.nearest((weights[j] + offset) * inverse);
      }
    }
  }

 private:
  double error(std::span<const float> x, std::span<const float> w, const Range& range) const {
    const float inverse = quant::BlockGrid::inverse_step(range.step);
    double sum = 0;
    for (std::size_t j = 0; j < x.size(); ++j) {
      const std::uint8_t code = rounder_.nearest((x[j] + range.offset) * inverse);
      const double e = double{x[j]} - out_.value(range.step, range.offset, code);
      sum += w[j] * e * e;
    }
    return sum;
  }

  Range best_affine(std::span<const float> x, std::span<const float> w) const {
    const auto [low, high] = std::minmax_element(x.begin(), x.end());
    const float least = std::min(0.0F, *low);
    const float most = std::max(0.0F, *high);
    const auto count = static_cast<float>(grid_.levels.back() - grid_.levels.front());
    Range best;
    double smallest = std::numeric_limits<double>::infinity();
    for (int gamma = 0; gamma < kFactors; ++gamma) {
      for (int beta = 0; beta < kFactors; ++beta) {
        const float offset = -factor(beta) * least;
        const Range range{(factor(gamma) * most + offset) / count, offset};
        const double cost = error(x, w, range);
        if (!(cost < smallest)) continue;
        smallest = cost;
        best = range;
      }
    }
    return best;
  }

  Range best_symmetric(std::span<const float> x, std::span<const float> w) const {
    const auto magnitude = [](float a, float b) { return std::fabs(a) < std::fabs(b); };
    const float largest = *std::max_element(x.begin(), x.end(), magnitude);
    // The outermost level is the lowest one; a scale that is a power of two has no sign.
    const float reach = grid_.has_half_scale ? largest / static_cast<float>(grid_.levels.front())
                                             : std::fabs(largest) / float(grid_.levels.back());
    Range best;
    double smallest = std::numeric_limits<double>::infinity();
    for (int gamma = 0; gamma < kFactors; ++gamma) {
      float step = factor(gamma) * reach;
      if (!grid_.has_half_scale) step = grid_.scale_value(grid_.nearest_scale(step));
      const double cost = error(x, w, {step, 0});
      if (!(cost < smallest)) continue;
      smallest = cost;
      best.step = step;
    }
    return best;
  }

  /// Rounds the ranges to what the block can hold: the largest gets the outermost integer.
  void store(const std::vector<Range>& ranges, std::size_t row, std::size_t block) {
    const std::size_t first = block * ranges.size();
    Range largest;
    for (const Range& range : ranges) {
      if (std::fabs(range.step) > std::fabs(largest.step)) largest.step = range.step;
      if (std::fabs(range.offset) > std::fabs(largest.offset)) largest.offset = range.offset;
    }
    const quant::IntegerRange& s = grid_.scales;
    const int outermost = s.low < 0 ? s.low : s.high;
    const auto unit = grid_.nearest_scale(largest.step / static_cast<float>(outermost));
    out_.block_scales(row)[block] = unit;
    const float scale = grid_.scale_value(unit);
    for (std::size_t k = 0; k < ranges.size(); ++k) {
      out_.scales(row)[first + k] = integer(ranges[k].step, scale, s);
    }
    if (!grid_.has_mins()) return;
    const auto min_unit = quant::nearest_half(largest.offset / float(grid_.mins.high));
    out_.block_mins(row)[block] = min_unit;
    const float min_scale = quant::BlockGrid::min_value(min_unit);
    for (std::size_t k = 0; k < ranges.size(); ++k) {
      out_.mins(row)[first + k] = integer(ranges[k].offset, min_scale, grid_.mins);
    }
  }

  static std::int8_t integer(float value, float unit, const quant::IntegerRange& range) {
    const float units = value * quant::BlockGrid::inverse_step(unit);
    return static_cast<std::int8_t>(
        std::clamp(std::nearbyint(units), float(range.low), float(range.high)));
  }

  CodedMatrix& out_;
  const quant::BlockGrid& grid_;
  quant::LevelRounder rounder_;
  std::span<const float> importance_;
};

/// The scales of one row by their effect on its output error.
class OutputScales {
 public:
  OutputScales(ConstMatrix h, CodedMatrix& out)
      : h_(h), out_(out), grid_(out.grid()), rounder_(grid_), size_(grid_.block_size) {}

  void run(std::span<const float> weights, std::size_t row, std::span<float> values,
           std::span<float> gradient) {
    constexpr int kRounds = 3;
    for (int round = 0; round < kRounds; ++round) {
      bool moved = false;
      for (std::size_t block = 0; block < out_.blocks_per_row(); ++block) {
        moved = search_block(weights, row, block, values, gradient) || moved;
      }
      if (!moved) break;
    }
  }

 private:
  struct Trial {
    double change = 0;  // of the loss; below 0 where it is better than what is stored
    std::uint16_t scale = 0;
    float moved[quant::kSuperBlock];
    std::uint8_t codes[quant::kSuperBlock];
  };

  void measure(std::span<const float> weights, std::size_t first, std::span<const float> values,
               std::span<const float> gradient, Trial& trial) const {
    const float step = grid_.scale_value(trial.scale);
    const float inverse = quant::BlockGrid::inverse_step(step);
    for (std::size_t i = 0; i < size_; ++i) {
      trial.codes[i] = rounder_.nearest(weights[first + i] * inverse);
      trial.moved[i] = out_.value(step, 0, trial.codes[i]) - values[first + i];
    }
    trial.change = 0;
    for (std::size_t i = 0; i < size_; ++i) {
      const float* const h = h_.data + (first + i) * h_.row_stride + first;
      float curved = 0;
      for (std::size_t j = 0; j < size_; ++j) curved += h[j] * trial.moved[j];
      trial.change += double{trial.moved[i]} * (2.0 * gradient[first + i] + double{curved});
    }
  }

  bool search_block(std::span<const float> weights, std::size_t row, std::size_t block,
                    std::span<float> values, std::span<float> gradient) {
    const std::size_t first = block * size_;
    float largest = 0;
    for (std::size_t i = 0; i < size_; ++i) {
      largest = std::max(largest, std::fabs(weights[first + i]));
    }
    Trial trial;
    Trial best;
    const float reach = largest / -static_cast<float>(grid_.levels.front());
    for (int eighth = -16; eighth <= 4; ++eighth) {
      if (!grid_.has_half_scale && eighth % 8 != 0) continue;
      const float scale = reach * std::exp2(static_cast<float>(eighth) / 8);
      for (const float sign : {1.0F, -1.0F}) {
        if (sign < 0 && !grid_.has_half_scale) continue;
        trial.scale = grid_.nearest_scale(sign * scale);
        measure(weights, first, values, gradient, trial);
        if (trial.change < best.change) best = trial;
      }
    }
    if (!(best.change < 0)) return false;
    take(best, row, block, values, gradient);
    return true;
  }

  void take(const Trial& trial, std::size_t row, std::size_t block, std::span<float> values,
            std::span<float> gradient) {
    const std::size_t first = block * size_;
    out_.block_scales(row)[block] = trial.scale;
    for (std::size_t i = 0; i < size_; ++i) {
      out_.codes(row)[first + i] = trial.codes[i];
      values[first + i] += trial.moved[i];
      const float* const h = h_.data + (first + i) * h_.row_stride;
      for (std::size_t j = 0; j < gradient.size(); ++j) gradient[j] += trial.moved[i] * h[j];
    }
  }

  ConstMatrix h_;
  CodedMatrix& out_;
  const quant::BlockGrid& grid_;
  quant::LevelRounder rounder_;
  std::size_t size_;
};

}  // namespace

void round_in_clipped_ranges(ConstMatrix weights, std::span<const float> importance,
                             CodedMatrix& out, const Workers& workers) {
  WINNOW_CHECK(weights.cols == out.cols() && importance.size() == weights.cols);
  WINNOW_CHECK(out.grid().codebook == nullptr);
  workers.run(weights.rows, [&](std::size_t row, unsigned) {
    ClippedBlock clipped(out, importance);
    for (std::size_t block = 0; block < out.blocks_per_row(); ++block) {
      clipped.run(weights.row(row), row, block);
    }
  });
}

bool has_one_scale(const quant::BlockGrid& grid) {
  return grid.sub_size == grid.block_size && !grid.has_mins() && grid.codebook == nullptr;
}

void search_output_scales(ConstMatrix weights, ConstMatrix h, CodedMatrix& out,
                          const Workers& workers) {
  WINNOW_CHECK(weights.cols == out.cols() && h.cols == weights.cols && has_one_scale(out.grid()));
  workers.run((weights.rows + kSearchedRows - 1) / kSearchedRows, [&](std::size_t tile, unsigned) {
    const std::size_t first = tile * kSearchedRows;
    const std::size_t count = std::min(kSearchedRows, weights.rows - first);
    tensor::Matrix<float> values(count, h.cols);
    tensor::Matrix<float> errors(count, h.cols);
    tensor::Matrix<float> gradients(count, h.cols);
    for (std::size_t r = 0; r < count; ++r) {
      out.decode_row(first + r, values.row(r));
      for (std::size_t j = 0; j < h.cols; ++j) {
        errors.row(r)[j] = values.row(r)[j] - weights.row(first + r)[j];
      }
    }
    product(workers.kernels(), errors.view(), h, gradients.view());
    OutputScales search(h, out);
    for (std::size_t r = 0; r < count; ++r) {
      search.run(weights.row(first + r), first + r, values.row(r), gradients.row(r));
    }
  });
}

void round_without_feedback(ConstMatrix weights, std::span<const float> importance, ConstMatrix h,
                            ScaleSearch search, CodedMatrix& out, const Workers& workers) {
  if (out.grid().codebook != nullptr) search = ScaleSearch::kCodec;
  if (search == ScaleSearch::kClippedRanges) {
    round_in_clipped_ranges(weights, importance, out, workers);
    return;
  }
  round_to_nearest(weights, importance, out, workers);
  if (search == ScaleSearch::kOutput && has_one_scale(out.grid())) {
    search_output_scales(weights, h, out, workers);
  }
}

}  // namespace winnow::compress

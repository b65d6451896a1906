// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The whole quantiser against the best of all codes: rows of 8 weights in blocks of 2 bits with one
// f16 scale and minimum, where all 4^8 rows of codes can be tried, each with its best scale and
// minimum under the full Hessian.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "compress/descent.h"
#include "compress/error_feedback.h"
#include "compress/quantizer_test_support.h"

namespace winnow::compress {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): the helpers beside this file

constexpr std::size_t kSize = 8;
constexpr std::size_t kRows = 64;
constexpr std::int8_t kLevels[] = {0, 1, 2, 3};

/// Least weighted squares for given codes; a scale of zero gives a constant row.
void fit_codes(const float* w, const float* importance, quant::BlockParameters& out) {
  double sums[5] = {};  // 1, q, q^2, w, q w
  for (std::size_t j = 0; j < kSize; ++j) {
    const double terms[5] = {1, double(out.codes[j]), double(out.codes[j]) * out.codes[j],
                             double{w[j]}, double(out.codes[j]) * w[j]};
    for (std::size_t i = 0; i < 5; ++i) sums[i] += importance[j] * terms[i];
  }
  const double determinant = sums[0] * sums[2] - sums[1] * sums[1];
  const double step = determinant > 0 ? (sums[0] * sums[4] - sums[1] * sums[3]) / determinant : 0.0;
  const double offset = -(sums[3] - step * sums[1]) / sums[0];
  out.scale = quant::nearest_half(static_cast<float>(step));
  out.min_scale = quant::nearest_half(static_cast<float>(offset));
}

double weighted_error(const float* w, const float* importance, quant::BlockParameters& out,
                      const quant::LevelRounder& rounder) {
  const float step = tensor::half_to_float(out.scale);
  const float offset = tensor::half_to_float(out.min_scale);
  double error = 0;
  for (std::size_t j = 0; j < kSize; ++j) {
    out.codes[j] = rounder.nearest((w[j] + offset) * quant::BlockGrid::inverse_step(step));
    const double e = double{w[j]} - (double{step} * out.codes[j] - offset);
    error += importance[j] * e * e;
  }
  return error;
}

void fit(const float* w, const float* importance, quant::BlockParameters& out) noexcept;

float half_value(std::uint16_t stored) noexcept { return tensor::half_to_float(stored); }
void no_pack(const quant::BlockParameters&, std::byte*) noexcept {}

constexpr quant::BlockGrid kGrid = {.block_size = kSize,
                                    .sub_size = kSize,
                                    .levels = kLevels,
                                    .scales = {1, 1},
                                    .mins = {1, 1},
                                    .codebook = nullptr,
                                    .has_half_scale = true,
                                    .scale_value = half_value,
                                    .nearest_scale = quant::nearest_half,
                                    .fit = fit,
                                    .pack = no_pack};

/// Starts from ranges shrunk on either side and alternates nearest codes and least squares.
void fit(const float* w, const float* importance, quant::BlockParameters& out) noexcept {
  const quant::LevelRounder rounder(kGrid);
  const auto [low, high] = std::minmax_element(w, w + kSize);
  double best = std::numeric_limits<double>::infinity();
  for (int start = 0; start < 36; ++start) {
    const float shrink_low = 0.08F * static_cast<float>(start % 6);
    const float shrink_high = 0.08F * static_cast<float>(start / 6);
    const float range = *high - *low;
    quant::BlockParameters trial;
    trial.scales[0] = trial.mins[0] = 1;
    trial.scale = quant::nearest_half(range * (1 - shrink_low - shrink_high) / 3);
    trial.min_scale = quant::nearest_half(-(*low + shrink_low * range));
    for (int round = 0; round < 4; ++round) {
      const double error = weighted_error(w, importance, trial, rounder);
      if (error < best) {
        best = error;
        out = trial;
      }
      fit_codes(w, importance, trial);
    }
  }
}

/// The smallest loss of any codes with their best real scale and minimum: for each row of codes q a
/// parabola in two unknowns.
double smallest_loss(std::span<const float> w, const tensor::Matrix<float>& h) {
  double best = std::numeric_limits<double>::infinity();
  double ww = 0;
  double hw[kSize] = {};
  double h1[kSize] = {};
  for (std::size_t i = 0; i < kSize; ++i) {
    for (std::size_t j = 0; j < kSize; ++j) {
      hw[i] += double{h.row(i)[j]} * w[j];
      h1[i] += double{h.row(i)[j]};
    }
    ww += hw[i] * w[i];
  }
  double b1 = 0;
  double a11 = 0;
  for (std::size_t i = 0; i < kSize; ++i) {
    b1 += hw[i];
    a11 += h1[i];
  }
  for (unsigned all = 0; all < 1U << (2 * kSize); ++all) {
    double q[kSize];
    for (std::size_t i = 0; i < kSize; ++i) q[i] = all >> (2 * i) & 3U;
    double aqq = 0;
    double aq1 = 0;
    double bq = 0;
    for (std::size_t i = 0; i < kSize; ++i) {
      double hq = 0;
      for (std::size_t j = 0; j < kSize; ++j) hq += h.row(i)[j] * q[j];
      aqq += q[i] * hq;
      aq1 += q[i] * h1[i];
      bq += q[i] * hw[i];
    }
    const double determinant = aqq * a11 - aq1 * aq1;
    if (!(determinant > 1e-9 * aqq * a11)) continue;  // constant rows are no optimum
    const double s = (bq * a11 - b1 * aq1) / determinant;
    const double m = (b1 * aqq - bq * aq1) / determinant;
    best = std::min(best, ww - s * bq - m * b1);
  }
  return best;
}

class Exhaustive : public ::testing::Test {
 protected:
  Exhaustive() {
    codec.name = "2 bits";
    codec.block_size = kSize;
    codec.grid = &kGrid;
  }
  /// Mean over the rows of the loss relative to the smallest of all.
  double mean_excess(const std::vector<double>& losses) {
    double sum = 0;
    for (std::size_t r = 0; r < kRows; ++r) {
      const double least = smallest_loss(weights.row(r), damped.h);
      // Its scales are real numbers, ours f16.
      EXPECT_GT(losses[r], least * (1 - 1e-3));
      sum += losses[r] / least;
    }
    return sum / kRows - 1;
  }
  std::vector<double> losses_of(const CodedMatrix& coded) {
    std::vector<double> losses;
    std::vector<float> decoded(kSize);
    for (std::size_t r = 0; r < kRows; ++r) {
      coded.decode_row(r, decoded);
      double loss = 0;
      for (std::size_t i = 0; i < kSize; ++i) {
        for (std::size_t j = 0; j < kSize; ++j) {
          loss += (double{decoded[i]} - weights.row(r)[i]) * damped.h.row(i)[j] *
                  (double{decoded[j]} - weights.row(r)[j]);
        }
      }
      losses.push_back(loss);
    }
    return losses;
  }
  std::vector<double> run(const DescentOptions& options) {
    CodedMatrix coded(codec, kRows, kSize);
    round_with_feedback(weights.view(), damped, damped.conditional, BlockScales::kSearch, coded,
                        pool);
    descend(weights.view(), damped.h.view(), options, coded, pool);
    return losses_of(coded);
  }

  quant::Codec codec{};
  os::ThreadPool pool{1};
  tensor::Matrix<float> weights = random_matrix(1, kRows, kSize);
  DampedHessian damped =
      damp(correlated_hessian(2, 200, kSize), 0.01, kSize, ColumnOrder::kByImportance);
};

TEST_F(Exhaustive, TheQuantiserComesNearTheBestOfAllCodes) {
  DescentOptions options;
  std::printf("default %.4f\n", mean_excess(run(options)));
  options.pair_sweeps = 4;
  std::printf("pairs %.4f\n", mean_excess(run(options)));
  options.rounds = 10;
  std::printf("pairs, 10 rounds %.4f\n", mean_excess(run(options)));
  CodedMatrix coded(codec, kRows, kSize);
  round_to_nearest(weights.view(), std::vector<float>(kSize, 1.0F), coded, pool);
  std::printf("rtn %.4f\n", mean_excess(losses_of(coded)));
  round_with_feedback(weights.view(), damped, damped.conditional, BlockScales::kSearch, coded,
                      pool);
  std::printf("feedback %.4f\n", mean_excess(losses_of(coded)));
}

}  // namespace
}  // namespace winnow::compress

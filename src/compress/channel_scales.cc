// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/channel_scales.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace winnow::compress {
namespace {

constexpr int kGrid = 20;
constexpr double kSmallest = 1e-4;  // of a scale before normalisation: channels that are never used

/// Divided by the geometric mean of the extremes, so that the matrix keeps its magnitude.
std::vector<float> normalised(std::vector<double> scales) {
  for (double& s : scales) s = std::max(s, kSmallest);
  const auto [low, high] = std::minmax_element(scales.begin(), scales.end());
  const double middle = std::sqrt(*low * *high);
  std::vector<float> result(scales.size());
  for (std::size_t j = 0; j < scales.size(); ++j) {
    result[j] = static_cast<float>(scales[j] / middle);
  }
  return result;
}

std::vector<float> scales_of(std::span<const float> magnitudes, const std::vector<double>& largest,
                             ScaleFamily family, double alpha) {
  std::vector<double> scales(magnitudes.size());
  for (std::size_t j = 0; j < scales.size(); ++j) {
    scales[j] = std::pow(double{magnitudes[j]}, alpha);
    if (family == ScaleFamily::kSmoothQuantPlus) {
      scales[j] /= std::pow(std::max(largest[j], kSmallest), 1 - alpha);
    }
  }
  std::vector<float> result = normalised(std::move(scales));
  if (family != ScaleFamily::kExponentShift) return result;
  for (float& s : result) s = std::exp2(std::round(std::log2(s)));
  return result;
}

class SharedScales {
 public:
  SharedScales(std::span<const TrialMatrix> matrices, std::size_t channels,
               std::span<const std::uint32_t> channel_of, const HessianQuantizerOptions& options,
               const Workers& workers)
      : matrices_(matrices), channel_of_(channel_of), options_(options), workers_(workers) {
    for (const TrialMatrix& matrix : matrices) {
      WINNOW_CHECK(matrix.weights.cols == (channel_of.empty() ? channels : channel_of.size()));
      trials_.emplace_back(matrix, options, workers);
    }
  }

  /// max |W| of each channel over all that read it.
  std::vector<double> largest_weights(std::size_t channels) const {
    std::vector<double> largest(channels);
    for (const TrialMatrix& matrix : matrices_) {
      for (std::size_t r = 0; r < matrix.weights.rows; ++r) {
        for (std::size_t j = 0; j < matrix.weights.cols; ++j) {
          double& most = largest[channel_of_.empty() ? j : channel_of_[j]];
          most = std::max(most, std::fabs(double{matrix.weights.row(r)[j]}));
        }
      }
    }
    return largest;
  }

  double try_out(const std::vector<float>& scales) const {
    const std::vector<float> columns = of_columns(scales);
    double sum = 0;
    for (const QuantizerTrial& trial : trials_) sum += trial.loss(columns);
    return sum;
  }

  /// As the matrices will be quantised.
  double measure(const std::vector<float>& scales) const {
    const std::vector<float> columns = of_columns(scales);
    double sum = 0;
    for (const TrialMatrix& matrix : matrices_) {
      if (matrix.codec->grid == nullptr) continue;
      const Hessian hessian = matrix.hessian->of_divided_inputs(columns);
      const Hessian judge = matrix.judge().of_divided_inputs(columns);
      const auto scaled = scaled_columns(matrix.weights, columns);
      sum += held_out_loss({scaled.view(), matrix.codec, &hessian, &judge}, options_, workers_);
    }
    return sum;
  }

 private:
  std::vector<float> of_columns(const std::vector<float>& scales) const {
    if (channel_of_.empty()) return scales;
    std::vector<float> columns;
    for (const std::uint32_t channel : channel_of_) columns.push_back(scales[channel]);
    return columns;
  }

  std::span<const TrialMatrix> matrices_;
  std::span<const std::uint32_t> channel_of_;
  const HessianQuantizerOptions& options_;
  Workers workers_;
  std::vector<QuantizerTrial> trials_;
};

}  // namespace

ChannelScales search_channel_scales(std::span<const TrialMatrix> matrices,
                                    std::span<const float> magnitudes,
                                    std::span<const std::uint32_t> channel_of, ScaleFamily family,
                                    const HessianQuantizerOptions& options, double least_gain,
                                    const Workers& workers) {
  const SharedScales search(matrices, magnitudes.size(), channel_of, options, workers);
  const std::vector<float> ones(magnitudes.size(), 1.0F);
  const std::vector<double> largest = search.largest_weights(magnitudes.size());
  ChannelScales best;
  best.scales = ones;
  double least = search.try_out(ones);
  for (int step = 0; step < kGrid; ++step) {
    const double alpha = static_cast<double>(step) / kGrid;
    std::vector<float> scales = scales_of(magnitudes, largest, family, alpha);
    const double loss = search.try_out(scales);
    if (!(loss < least)) continue;
    least = loss;
    best.alpha = alpha;
    best.scales = std::move(scales);
  }
  best.held_out_loss = best.unscaled_loss = search.measure(ones);
  if (best.scales == ones) return best;
  best.held_out_loss = search.measure(best.scales);
  if (best.held_out_loss < (1 - least_gain) * best.unscaled_loss) return best;
  return {0, ones, best.unscaled_loss, best.unscaled_loss};
}

std::vector<float> input_magnitudes(const Hessian& hessian) {
  const double weight = hessian.weight() > 0 ? hessian.weight() : 1;
  std::vector<float> magnitudes;
  for (const double square : hessian.diagonal()) {
    magnitudes.push_back(static_cast<float>(std::sqrt(square / weight)));
  }
  return magnitudes;
}

}  // namespace winnow::compress

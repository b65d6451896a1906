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

std::vector<double> largest_weights(ConstMatrix weights) {
  std::vector<double> largest(weights.cols);
  for (std::size_t r = 0; r < weights.rows; ++r) {
    for (std::size_t j = 0; j < weights.cols; ++j) {
      largest[j] = std::max(largest[j], std::fabs(double{weights.row(r)[j]}));
    }
  }
  return largest;
}

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
  return normalised(std::move(scales));
}

}  // namespace

ChannelScales search_channel_scales(ConstMatrix weights, const quant::Codec& codec,
                                    const Hessian& hessian, const Hessian* held_out,
                                    std::span<const float> magnitudes, ScaleFamily family,
                                    const HessianQuantizerOptions& options, os::ThreadPool& pool) {
  WINNOW_CHECK(magnitudes.size() == weights.cols);
  std::vector<std::byte> bytes(weights.rows * (weights.cols / codec.block_size) *
                               codec.block_bytes);
  const Hessian& judge = held_out == nullptr ? hessian : *held_out;
  const auto loss_with = [&](std::span<const float> scales) {
    const Hessian scaled = hessian.of_divided_inputs(scales);
    const Hessian scaled_judge = judge.of_divided_inputs(scales);
    const auto matrix = scaled_columns(weights, scales);
    return quantize_matrix(matrix.view(), codec, scaled, &scaled_judge, options, pool, bytes)
        .chosen()
        .held_out_loss;
  };
  ChannelScales best;
  best.scales.assign(weights.cols, 1.0F);
  best.held_out_loss = best.unscaled_loss = loss_with(best.scales);
  const std::vector<double> largest = largest_weights(weights);
  for (int step = 0; step < kGrid; ++step) {
    const double alpha = static_cast<double>(step) / kGrid;
    std::vector<float> scales = scales_of(magnitudes, largest, family, alpha);
    const double loss = loss_with(scales);
    if (!(loss < best.held_out_loss)) continue;
    best.alpha = alpha;
    best.held_out_loss = loss;
    best.scales = std::move(scales);
  }
  return best;
}

tensor::Matrix<float> scaled_columns(ConstMatrix weights, std::span<const float> scales) {
  tensor::Matrix<float> result(weights.rows, weights.cols);
  for (std::size_t r = 0; r < weights.rows; ++r) {
    for (std::size_t j = 0; j < weights.cols; ++j) {
      result.row(r)[j] = weights.row(r)[j] * scales[j];
    }
  }
  return result;
}

}  // namespace winnow::compress

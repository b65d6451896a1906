// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/quantizer_trial.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "compress/coded_matrix.h"
#include "compress/descent.h"
#include "compress/error_feedback.h"

namespace winnow::compress {
namespace {

/// U of the divided inputs. The rest of the struct is not read by the feedback.
DampedHessian divided(const DampedHessian& damped, std::span<const float> scales) {
  DampedHessian result;
  result.order = damped.order;
  result.factor = damped.factor.clone();
  for (std::size_t i = 0; i < scales.size(); ++i) {
    const auto row = result.factor.row(i);
    for (std::size_t j = i; j < scales.size(); ++j) row[j] *= scales[damped.order[j]];
  }
  return result;
}

}  // namespace

QuantizerTrial::QuantizerTrial(const TrialMatrix& matrix, const HessianQuantizerOptions& options,
                               const Workers& workers)
    : matrix_(matrix), options_(options), workers_(workers) {
  const Hessian& judge = matrix.judge();
  WINNOW_CHECK(matrix.weights.cols == matrix.hessian->size() &&
               judge.size() == matrix.weights.cols);
  if (matrix.codec->grid == nullptr) return;
  judge_ = tensor::Matrix<float>(judge.size(), judge.size());
  const double per_token = judge.tokens() > 0 ? 1 / judge.tokens() : 1;
  const tensor::Matrix<double> dense = judge.dense();
  std::transform(dense.flat().begin(), dense.flat().end(), judge_.flat().begin(),
                 [&](double h) { return static_cast<float>(h * per_token); });
  const bool encoder_only = matrix.codec->grid->codebook != nullptr || options.dampings.empty();
  if (encoder_only) return;
  damped_ = damp(*matrix.hessian, options.dampings.front(), matrix.codec->block_size,
                 options.column_order);
}

std::vector<float> QuantizerTrial::importance(std::span<const float> inverse) const {
  const ScaleWeights kind = damped_ ? options_.scale_weights : ScaleWeights::kDiagonal;
  std::vector<float> result(inverse.size(), 1.0F);
  if (kind == ScaleWeights::kEqual) return result;
  result =
      kind == ScaleWeights::kConditional ? damped_->conditional : importance_of(*matrix_.hessian);
  for (std::size_t j = 0; j < inverse.size(); ++j) result[j] *= inverse[j] * inverse[j];
  return result;
}

void QuantizerTrial::quantize(ConstMatrix scaled, std::span<const float> scales,
                              CodedMatrix& coded) const {
  std::vector<float> inverse(scales.size());
  for (std::size_t j = 0; j < scales.size(); ++j) inverse[j] = 1 / scales[j];
  const std::vector<float> weights = importance(inverse);
  if (!damped_) {  // the codec's own encoder is all there is
    round_to_nearest(scaled, weights, coded, workers_);
    return;
  }
  if (options_.feedback) {
    round_with_feedback(scaled, divided(*damped_, scales), weights, BlockScales::kSearch, coded,
                        workers_);
    return;
  }
  tensor::Matrix<float> h;
  if (options_.scale_search == ScaleSearch::kOutput) {
    h = scaled_columns(damped_->h.view(), inverse);
    for (std::size_t i = 0; i < scales.size(); ++i) {
      for (float& value : h.row(i)) value *= inverse[i];
    }
  }
  round_without_feedback(scaled, weights, h.view(), options_.scale_search, coded, workers_);
}

double QuantizerTrial::loss(std::span<const float> scales) const {
  WINNOW_CHECK(scales.size() == matrix_.weights.cols);
  if (matrix_.codec->grid == nullptr) return 0;
  const tensor::Matrix<float> scaled = scaled_columns(matrix_.weights, scales);
  CodedMatrix coded(*matrix_.codec, scaled.rows(), scaled.cols());
  quantize(scaled.view(), scales, coded);
  const RowDecoder decode_row = [&](std::size_t row, std::span<float> values) {
    coded.decode_row(row, values);
    for (std::size_t j = 0; j < values.size(); ++j) values[j] /= scales[j];
  };
  return quadratic_loss(matrix_.weights, judge_.view(), decode_row, workers_);
}

double held_out_loss(const TrialMatrix& matrix, const HessianQuantizerOptions& options,
                     const Workers& workers) {
  const quant::Codec& codec = *matrix.codec;
  std::vector<std::byte> bytes(matrix.weights.rows * (matrix.weights.cols / codec.block_size) *
                               codec.block_bytes);
  return quantize_matrix(matrix.weights, codec, *matrix.hessian, matrix.held_out, options, workers,
                         bytes)
      .chosen()
      .held_out_loss;
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

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The loss of a matrix under many choices of channel scales, without a factorisation for each: with
// H^-1 = U^T U, the Hessian S^-1 H S^-1 of the inputs divided by S = diag(s) has the factor U S.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "compress/damped_hessian.h"
#include "compress/hessian.h"
#include "compress/hessian_quantizer.h"
#include "compress/workers.h"
#include "quant/codec.h"

namespace winnow::compress {

/// A matrix and what is known of its input; all borrowed.
struct TrialMatrix {
  ConstMatrix weights;  ///< [rows, n]; some of the rows will do
  const quant::Codec* codec = nullptr;
  const Hessian* hessian = nullptr;   ///< [n, n]
  const Hessian* held_out = nullptr;  ///< of other text; null: `hessian` judges

  const Hessian& judge() const { return held_out == nullptr ? *hessian : *held_out; }
};

/// Quantises as `options` say but for the descent and the guard, at the first damping, whose ridge
/// and order of columns are those of the unscaled Hessian.
class QuantizerTrial {
 public:
  QuantizerTrial(const TrialMatrix& matrix, const HessianQuantizerOptions& options,
                 const Workers& workers);

  /// Held-out loss per token of W diag(s) with inputs divided by s. scales: [n], over 0. Zero for
  /// a float codec.
  double loss(std::span<const float> scales) const;

 private:
  /// Of errors in the scaled columns; inverse: 1 / s.
  std::vector<float> importance(std::span<const float> inverse) const;
  void quantize(ConstMatrix scaled, std::span<const float> scales, CodedMatrix& coded) const;

  const TrialMatrix& matrix_;
  const HessianQuantizerOptions& options_;
  Workers workers_;
  std::optional<DampedHessian> damped_;
  tensor::Matrix<float> judge_;  // per token
};

/// The held-out loss per token of a whole quantisation with `options`.
double held_out_loss(const TrialMatrix& matrix, const HessianQuantizerOptions& options,
                     const Workers& workers);

/// W diag(s).
tensor::Matrix<float> scaled_columns(ConstMatrix weights, std::span<const float> scales);

}  // namespace winnow::compress

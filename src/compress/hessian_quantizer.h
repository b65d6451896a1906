// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Quantises one weight matrix into the blocks of a codec under the full Hessian of its inputs:
// scales searched with what an error costs once later columns have made up for it, rounding with
// error feedback (GPTQ, arXiv:2210.17323), then coordinate descent over codes, integers and scales,
// and a check on inputs that took no part. Each step can be left out.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "compress/damped_hessian.h"
#include "compress/descent.h"
#include "compress/hessian.h"
#include "compress/prepared_hessian.h"
#include "compress/range_search.h"
#include "compress/workers.h"
#include "quant/codec.h"

namespace winnow::compress {

/// What the search for scales takes an error in column j to cost.
enum class ScaleWeights {
  kEqual,        ///< the same in every column
  kDiagonal,     ///< H_jj, as importance matrices do
  kConditional,  ///< 1 / U_jj^2: what of it the later columns cannot make up for
};

struct HessianQuantizerOptions {
  /// Ridges relative to the mean of diag H, over 0. Each gives one candidate; the held-out Hessian
  /// chooses. Rarely seen experts profit from more.
  std::vector<double> dampings = {0.01, 0.1};
  ColumnOrder column_order = ColumnOrder::kByImportance;
  ScaleWeights scale_weights = ScaleWeights::kConditional;
  bool feedback = true;  ///< else the nearest codes of the searched scales
  /// With feedback: whether neighbours of the searched block scales are tried.
  bool neighbour_scales = true;
  std::optional<DescentOptions> descent = DescentOptions{};
  /// Whether the codec's own encoder is a candidate; it wins ties.
  bool guard = true;
  /// Read where there is no feedback.
  ScaleSearch scale_search = ScaleSearch::kCodec;
};

/// One candidate, with its losses tr(dW H dW^T) per token of the Hessian.
struct QuantizerCandidate {
  double damping = 0;  ///< 0: the codec's encoder with the diagonal as importance
  double loss = 0;
  double held_out_loss = 0;  ///< equals `loss` when there is no held-out Hessian
  double rounded_loss = 0;   ///< before the descent
};

struct QuantizerReport {
  std::vector<QuantizerCandidate> candidates;
  std::size_t winner = 0;  ///< of the smallest held-out loss; the first on ties

  const QuantizerCandidate& chosen() const { return candidates[winner]; }
};

/// weights: [rows, n] finite f32, n a multiple of the codec's block; hessian: [n, n];
/// out: rows * n / block_size * block_bytes bytes, overwritten. Float codecs are encoded as they
/// are. Rows are worked on in parallel; the result does not depend on the number of threads.
/// Memory: 8 n^2 to 24 n^2 bytes at a time and about 2 bytes per weight. Throws Error{kBadData}
/// when a weight is not finite.
QuantizerReport quantize_matrix(ConstMatrix weights, const quant::Codec& codec,
                                PreparedHessian& hessian, const HessianQuantizerOptions& options,
                                const Workers& workers, std::span<std::byte> out);

/// The same for a Hessian that no other matrix needs; held_out may be null.
QuantizerReport quantize_matrix(ConstMatrix weights, const quant::Codec& codec,
                                const Hessian& hessian, const Hessian* held_out,
                                const HessianQuantizerOptions& options, const Workers& workers,
                                std::span<std::byte> out);

/// Loss, summed over the tokens that judge, of rounding with all columns alike.
double plain_loss(ConstMatrix weights, const quant::Codec& codec, PreparedHessian& hessian,
                  const Workers& workers);

/// The diagonal as importances for `Codec::encode`, relative to its mean, at least 1e-6; all ones
/// when it is zero.
std::vector<float> importance_of(const Hessian& hessian);

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How much of the room they have the keys of each head use, and the hidden states of each layer:
// the truncated matrix entropy of UNComp (arXiv:2410.03090), and the Matrix Nuclear-Norm
// (arXiv:2410.10672), which needs no decomposition.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/json.h"
#include "base/log.h"
#include "engine/engine.h"
#include "metrics/text_data.h"
#include "tensor/matrix.h"

namespace winnow::compress {

/// Eigenvalues that count, at most.
inline constexpr std::size_t kEntropyValues = 32;

/// Sums z z^T over the directions z of vectors.
class DirectionMoments {
 public:
  explicit DirectionMoments(std::size_t size) : sums_(size, size) {}
  /// x: [tokens, size], one sequence. Its mean is taken off, each row divided by its norm; rows
  /// that are the mean are left out. Cost: tokens * size^2 multiply-adds.
  void add(tensor::MatrixView<const float> x);
  /// -sum over the kEntropyValues largest eigenvalues l of the sums divided by their trace of
  /// l log l, over log(size): 0 for directions on one line; 1 for directions that are spread
  /// evenly, if size <= kEntropyValues, and at most kEntropyValues / size else. 0 without a
  /// direction.
  double entropy() const;

 private:
  tensor::Matrix<double> sums_;  // the lower triangle
};

/// The sum of the min(rows, cols) largest norms of columns: the nuclear norm where columns are
/// orthogonal, and else an estimate. x: [rows, cols].
double nuclear_norm_estimate(tensor::MatrixView<const float> x);

struct KeyEntropy {
  std::uint64_t tokens = 0;
  std::vector<std::vector<double>> heads;  ///< [layers][key-value heads]
  /// [layers]: estimates of windows of what the layer's attention reads, rows divided by their
  /// norms; their sum over the number of tokens.
  std::vector<double> nuclear_norms;
};

/// Runs the windows; keys are those that attention sees, normed and rotated, in F32. Sums go over
/// all windows, each of which has a mean of its own. Throws what Engine::forward does,
/// Error{kInterrupted}.
KeyEntropy measure_key_entropy(engine::Engine& engine, const metrics::WindowSet& windows, Log& log);

/// `tokens, layers[{heads, nuclear_norm}]`.
Json to_json(const KeyEntropy& entropy);

}  // namespace winnow::compress

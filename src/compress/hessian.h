// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The Hessian of a linear layer's squared output error in one row of its weights: the weighted Gram
// matrix of its inputs, H = sum_t w_t x_t x_t^T. A change dW of the weights costs tr(dW H dW^T).
// Used so by OBC (arXiv:2208.11580) and GPTQ (arXiv:2210.17323).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/kernels.h"
#include "os/thread_pool.h"
#include "tensor/matrix.h"

namespace winnow::compress {

/// Sums over tokens. Adding the sums of two texts gives those of both. Copyable: 4 size^2 bytes.
class Hessian {
 public:
  /// All sums zero. size: in_features of the matrices that read this input.
  explicit Hessian(std::size_t size) : size_(size), values_(size * (size + 1) / 2) {}

  /// Every column the same and on its own: for rows that are looked up, not multiplied.
  static Hessian identity(std::size_t size);

  /// Adds w_t x_t x_t^T for every row of x [tokens, size]; weights [tokens], non-negative, or empty
  /// for all ones. Products in f32 within stretches of 64 tokens, which are summed in f64 in
  /// order: the thread count changes nothing, other cuts of the text agree to about 1e-6.
  /// Throws Error{kBadData} on a value or a weight that is not finite, before anything is added.
  /// Cost: tokens * size^2 / 2 multiply-adds.
  void add(tensor::MatrixView<const float> x, std::span<const float> weights, os::ThreadPool& pool,
           const kernels::Kernels& kernels);
  /// The same with the reference kernels.
  void add(tensor::MatrixView<const float> x, std::span<const float> weights, os::ThreadPool& pool);
  /// Adds `factor` times the sums of `other`, of the same size; tokens and weight likewise.
  void add(const Hessian& other, double factor = 1.0);

  /// The sums for inputs divided by `scales` [size], finite and over 0: H_ij / (s_i s_j).
  Hessian of_divided_inputs(std::span<const float> scales) const;
  /// The sums for inputs in another order: input i is what input order[i] was. order: [size], a
  /// permutation.
  Hessian of_reordered_inputs(std::span<const std::uint32_t> order) const;

  /// The sums for inputs of which each stretch of `width` is transformed by `hadamard`: R H R^T.
  Hessian of_rotated_inputs(std::size_t width) const;
  /// The same without what any two inputs have in common: zeros beside the diagonal.
  Hessian of_inputs_apart() const;
  /// The sums for some of the inputs: input i is what input kept[i] was.
  Hessian of_some_inputs(std::span<const std::uint32_t> kept) const;

  std::size_t size() const { return size_; }
  /// H[i][j], also for i < j.
  double at(std::size_t i, std::size_t j) const { return i < j ? at(j, i) : values_[packed(i, j)]; }
  std::vector<double> diagonal() const;
  double trace() const;
  /// Tokens added, and the sum of their weights. Fractions come from adding with a factor.
  double tokens() const { return tokens_; }
  double weight() const { return weight_; }

  /// The matrix in full [size, size], f64, plus `ridge` on its diagonal.
  tensor::Matrix<double> dense(double ridge = 0) const;

 private:
  static std::size_t packed(std::size_t i, std::size_t j) { return i * (i + 1) / 2 + j; }

  std::size_t size_;
  std::vector<double> values_;  // lower triangle, row after row
  double tokens_ = 0;
  double weight_ = 0;
};

/// What to add to the diagonal so that an inverse exists and noise is not fitted: `damping` times
/// the mean of the diagonal; 1 when that is zero (no token, or only zeros, was seen).
double ridge_of(const Hessian& hessian, double damping);
/// For dampings that grow until a matrix can be factored: throws Error{kBadData} once no sums of
/// finite inputs can need as much.
void require_factor(double damping);

/// The statistic of an expert that saw few tokens, drawn towards the one of its layer:
/// H + pseudo_tokens * rho * H_layer / T_layer, where rho = (tr H / T) / (tr H_layer / T_layer)
/// keeps the expert's own energy per token. An expert without tokens has the layer's with rho = 1;
/// a layer without tokens changes nothing. pseudo_tokens of 0.25 to 1 times the size are usual.
Hessian shrunk_towards(const Hessian& expert, const Hessian& layer, double pseudo_tokens);

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What the output of a layer loses when something stands for several of its experts at once. Where
// the router goes on choosing as before, doing so to the experts of a set P changes the output by
// sum over e in P of g_e (f_e - s_e), s_e being what stands for e; its square, summed over tokens,
// is the sum over all pairs in P of a Gram matrix that one pass gives.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "compress/window_stream.h"
#include "engine/layer_runner.h"
#include "engine/observer.h"
#include "engine/overrides.h"
#include "model/spec.h"
#include "tensor/matrix.h"

namespace winnow::compress {

/// Per token of the text: (expert, what stands for it) against the same.
class LossGram {
 public:
  using Kind = engine::ExpertSubstitute::Kind;
  /// One entry of a set: zero, identity or constant in the place of an expert.
  struct Loss {
    ExpertId expert{};
    Kind kind = Kind::kZero;
  };

  explicit LossGram(std::size_t experts) : experts_(experts), gram_(3 * experts, 3 * experts) {}

  /// Mean over the text's tokens of the product of the two changes of the output.
  double at(const Loss& a, const Loss& b) const { return gram_.row(place(a))[place(b)]; }
  /// The mean squared change of all of the set at once.
  double squared_change(std::span<const Loss> set) const;
  /// Whether the router's choices stay when this stands for an expert.
  static bool covers(Kind kind);

  std::size_t experts() const { return experts_; }
  void add(const Loss& a, const Loss& b, double product) {
    gram_.row(place(a))[place(b)] += product;
  }
  void scale(double factor);

 private:
  std::size_t place(const Loss& loss) const;

  std::size_t experts_;
  tensor::Matrix<double> gram_;  // [3 * experts, 3 * experts], by kind, then by expert
};

/// That of the loaded layer on the states of `text`, which stay. constants: [experts][hidden_size],
/// what stands for each under kConstant. The numbers depend on neither batches nor threads. Cost
/// per token: (2 top_k + 1)^2 / 2 products of vectors [hidden_size].
LossGram collect_losses(engine::LayerRunner& runner, const model::ModelSpec& spec, LayerId layer,
                        std::span<const std::vector<float>> constants, const WindowStream& text,
                        Log& log);

}  // namespace winnow::compress

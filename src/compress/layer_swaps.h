// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Of a layer's experts, which ones something stands for, improved two at a time. The knapsack adds
// up what experts lose one by one; experts that a token is sent to together lose more or less than
// that together, as their Gram matrix says exactly (loss_gram.h). So as long as it lowers the
// layer's damage, an expert gets its matrices back, in the types of another one, which gives its
// own up: the same bytes. (Local search by swaps, as of the order of experts in COMET,
// arXiv:2306.02824; the quadratic form of pruned sets as in the selection `gram`.)
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <vector>

#include "compress/loss_gram.h"

namespace winnow::compress {

/// One layer.
struct SwapProblem {
  const LossGram* gram = nullptr;  ///< borrowed
  /// [experts]: what stands for each; nothing where it has matrices, or a form that does not swap.
  std::vector<std::optional<LossGram::Kind>> gone;
  /// Whether an expert that is not gone has its own whole matrices, and this may stand for it.
  std::function<bool(ExpertId, LossGram::Kind)> may_go;
  /// Predicted damage of an expert's matrices in the types that `as` has at the start.
  std::function<double(ExpertId, ExpertId as)> types_damage;
  double kl_per_change = 0;  ///< nats per token, of the mean squared change of the output
};

struct Swap {
  ExpertId back{};  ///< gets its matrices, in the types of the other
  ExpertId gone{};  ///< what stood for the first now stands for it
};

/// The best swap, again and again, until none lowers the damage. Ties to the lower numbers. Cost:
/// experts gone times experts there for each, and at most four for each expert that is gone.
std::vector<Swap> improving_swaps(SwapProblem problem);

}  // namespace winnow::compress

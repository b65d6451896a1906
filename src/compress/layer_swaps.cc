// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/layer_swaps.h"

#include <algorithm>

#include "base/error.h"

namespace winnow::compress {
namespace {

using Loss = LossGram::Loss;

struct Candidate {
  Swap swap;
  double gain = 0;
};

std::vector<Loss> losses_of(const SwapProblem& problem) {
  std::vector<Loss> losses;
  for (std::uint32_t e = 0; e < problem.gone.size(); ++e) {
    if (problem.gone[e]) losses.push_back({ExpertId{e}, *problem.gone[e]});
  }
  return losses;
}

/// What the set has in common with one loss.
double shared_with(const LossGram& gram, std::span<const Loss> set, const Loss& loss) {
  double sum = 0;
  for (const Loss& other : set) sum += gram.at(loss, other);
  return sum;
}

/// types_of: [experts]: whose types each has.
std::optional<Candidate> best_swap(const SwapProblem& problem, std::span<const ExpertId> types_of) {
  const LossGram& gram = *problem.gram;
  const std::vector<Loss> set = losses_of(problem);
  std::optional<Candidate> best;
  for (const Loss& back : set) {
    const double without = gram.at(back, back) - 2 * shared_with(gram, set, back);
    for (std::uint32_t e = 0; e < problem.gone.size(); ++e) {
      const Loss gone{ExpertId{e}, back.kind};
      if (problem.gone[e] || !problem.may_go(gone.expert, gone.kind)) continue;
      const double with =
          gram.at(gone, gone) + 2 * (shared_with(gram, set, gone) - gram.at(gone, back));
      const double gain = -problem.kl_per_change * (without + with) +
                          problem.types_damage(gone.expert, types_of[e]) -
                          problem.types_damage(back.expert, types_of[e]);
      if (!best || gain > best->gain) best = {{back.expert, gone.expert}, gain};
    }
  }
  return best;
}

}  // namespace

std::vector<Swap> improving_swaps(SwapProblem problem) {
  constexpr double kLeastGain = 1e-9;  // of the damage: rounding must not go in circles
  WINNOW_CHECK(problem.gone.size() == problem.gram->experts());
  const std::vector<Loss> start = losses_of(problem);
  const double least = kLeastGain * problem.kl_per_change * problem.gram->squared_change(start);
  std::vector<ExpertId> types_of;
  for (std::uint32_t e = 0; e < problem.gone.size(); ++e) types_of.push_back(ExpertId{e});
  std::vector<Swap> swaps;
  while (swaps.size() < 4 * start.size()) {
    const std::optional<Candidate> best = best_swap(problem, types_of);
    if (!best || !(best->gain > least)) break;
    auto& back = problem.gone[index(best->swap.back)];
    problem.gone[index(best->swap.gone)] = back;
    back.reset();
    types_of[index(best->swap.back)] = types_of[index(best->swap.gone)];
    swaps.push_back(best->swap);
  }
  return swaps;
}

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Improves the choice of codecs on measured divergence: predictions add up over groups, models do
// not. An evolution strategy over one factor per group that scales its predicted damage; each set
// of factors gives a mix through the knapsack, so that every mix fits the budget. Like EvoPress
// (arXiv:2410.14649) it ranks whole models by true divergence; unlike it, it moves in damages.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/log.h"
#include "compress/mix_problem.h"

namespace winnow::compress {

struct MixSearchOptions {
  int rounds = 3;     ///< a round without a better mix halves the step
  int offspring = 8;  ///< mixes measured in a round, those known already not counted
  double step = 0.4;  ///< standard deviation of the logarithm of the factors
  std::uint64_t seed = 1;
};

struct MixSearchResult {
  Mix mix;
  double first = 0;  ///< divergence of the mix that it started from
  double best = 0;   ///< of `mix`; never above `first`
  int measured = 0;  ///< mixes in all
};

/// solve: the best mix when group g's damages count factors[g] times; all ones give the mix to
/// start from. measure: divergences of some mixes, nats. Deterministic for a seed.
MixSearchResult search_mix(std::size_t groups,
                           const std::function<Mix(std::span<const double> factors)>& solve,
                           const std::function<std::vector<double>(std::span<const Mix>)>& measure,
                           const MixSearchOptions& options, Log& log);

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/mix_problem.h"

#include <numeric>

#include "base/error.h"
#include "compress/knapsack.h"

namespace winnow::compress {

std::uint64_t MixProblem::size_of(const Mix& mix) const {
  WINNOW_CHECK(mix.size() == bytes.size());
  std::uint64_t total = 0;
  for (std::size_t g = 0; g < mix.size(); ++g) total += bytes[g][mix[g]];
  return total;
}

Mix MixProblem::solve(const DamageTable& damages) const {
  std::vector<std::vector<std::size_t>> all;
  for (const auto& options : bytes) {
    all.emplace_back(options.size());
    std::iota(all.back().begin(), all.back().end(), std::size_t{0});
  }
  return solve(damages, all);
}

Mix MixProblem::solve(const DamageTable& damages,
                      const std::vector<std::vector<std::size_t>>& allowed) const {
  WINNOW_CHECK(damages.size() == bytes.size() && allowed.size() == bytes.size());
  std::vector<std::vector<Choice>> items;
  for (std::size_t g = 0; g < bytes.size(); ++g) {
    items.emplace_back();
    for (const std::size_t option : allowed[g]) {
      items.back().push_back({bytes[g][option], damages[g][option]});
    }
  }
  const auto picks = solve_knapsack(items, room, most_states(items.size()));
  WINNOW_CHECK(picks.has_value());
  Mix mix;
  for (std::size_t g = 0; g < bytes.size(); ++g) mix.push_back(allowed[g][(*picks)[g]]);
  return mix;
}

double damage_of(const DamageTable& damages, const Mix& mix) {
  double total = 0;
  for (std::size_t g = 0; g < mix.size(); ++g) total += damages[g][mix[g]];
  return total;
}

}  // namespace winnow::compress

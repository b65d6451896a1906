// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The choice of one option for each group within a budget, whatever the damages are taken to be.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace winnow::compress {

/// Index of the option of each group.
using Mix = std::vector<std::size_t>;
/// [groups][options]: what an option is taken to cost; >= 0, finite. Adds up over groups.
using DamageTable = std::vector<std::vector<double>>;

struct MixProblem {
  std::vector<std::vector<std::uint64_t>> bytes;  ///< [groups][options]
  std::uint64_t room = 0;                         ///< for all groups together

  std::uint64_t size_of(const Mix& mix) const;
  /// The mix of least damage that fits (see `solve_knapsack`). The smallest options must fit.
  Mix solve(const DamageTable& damages) const;
  /// The same among the options that `allowed` lists for each group; the smallest of them must fit.
  Mix solve(const DamageTable& damages, const std::vector<std::vector<std::size_t>>& allowed) const;
};

/// Sum over groups of what the mix's options cost.
double damage_of(const DamageTable& damages, const Mix& mix);

}  // namespace winnow::compress

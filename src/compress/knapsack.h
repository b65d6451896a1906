// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The multiple-choice knapsack: one option per item, total bytes within a budget, least damage.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace winnow::compress {

/// One way to store an item.
struct Choice {
  std::uint64_t bytes = 0;
  double damage = 0;  ///< >= 0, finite
};

/// The exact optimum: for each item the index of its choice, or nothing when even the smallest
/// choices exceed the budget. Among equal damages the smaller total wins.
/// Dynamic programming over the states (bytes, damage) that no other state beats in both
/// (Kellerer, Pferschy, Pisinger 2004, chapter 11), cut where the Lagrangian bound shows that no
/// completion beats a solution that is already known. Should more than `max_states` survive an
/// item, those with the least bound are kept: the result still fits the budget, and is never worse
/// than the Lagrangian solution, but may miss the optimum. Memory: 8 bytes per state and item.
/// Every item needs at least one choice.
std::optional<std::vector<std::size_t>> solve_knapsack(std::span<const std::vector<Choice>> items,
                                                       std::uint64_t budget,
                                                       std::size_t max_states = std::size_t{1}
                                                                                << 17);

/// For `max_states`: 2^17, or fewer for so many items that their states would take more than
/// 256 MiB.
std::size_t most_states(std::size_t items);

}  // namespace winnow::compress

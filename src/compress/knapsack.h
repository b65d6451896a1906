// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The multiple-choice knapsack: one option per item, total bytes within a budget, least damage.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/units.h"

namespace winnow::compress {

/// One way to store an item.
struct Choice {
  std::uint64_t bytes = 0;
  double damage = 0;  ///< >= 0, finite
};

inline constexpr std::size_t kMostStates = std::size_t{1} << 17;

/// The exact optimum: for each item the index of its choice, or nothing when even the smallest
/// choices exceed the budget. Among equal damages the smaller total wins.
/// Dynamic programming over the states (bytes, damage) that no other state beats in both
/// (Kellerer, Pferschy, Pisinger 2004, chapter 11), cut where the Lagrangian bound shows that no
/// completion beats a solution that is already known. Should more than `max_states` survive an
/// item, those with the least bound are kept: the result still fits the budget, and is never worse
/// than the Lagrangian solution, but may miss the optimum. Memory: see `knapsack_memory`.
/// Every item needs at least one choice, and has at most 2^15; max_states: at most kMostStates.
std::optional<std::vector<std::size_t>> solve_knapsack(std::span<const std::vector<Choice>> items,
                                                       std::uint64_t budget,
                                                       std::size_t max_states = kMostStates);

/// For `max_states`: `kMostStates`, or fewer for so many items that what is kept of their states
/// would take more than 32 MiB.
std::size_t most_states(std::size_t items);

/// What the solution takes at most with so many states, its choices and result not counted. Where
/// no state beats another, the moment of an item with many choices may take more.
Bytes knapsack_memory(std::size_t items);

}  // namespace winnow::compress

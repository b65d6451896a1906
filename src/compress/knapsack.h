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
/// choices exceed the budget. Among equal damages the smaller total wins, then the earlier choice.
/// Dynamic programming over the states (bytes, damage) that no other state beats in both
/// (Kellerer, Pferschy, Pisinger 2004, chapter 11). Their number is at most budget / gcd(bytes);
/// beyond `max_states` the bytes are rounded up to a coarser unit, which keeps every solution
/// within the budget and costs at most one unit per item of optimality.
std::optional<std::vector<std::size_t>> solve_knapsack(std::span<const std::vector<Choice>> items,
                                                       std::uint64_t budget,
                                                       std::size_t max_states = std::size_t{1}
                                                                                << 22);

}  // namespace winnow::compress

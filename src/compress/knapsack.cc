// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/knapsack.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/checked.h"
#include "base/error.h"

namespace winnow::compress {
namespace {

/// A partial solution over the first items: how it came about, to walk back.
struct State {
  std::uint64_t units;
  double damage;
  std::uint32_t previous;  // index into the states of the item before
  std::uint32_t choice;
};

std::uint64_t divide_up(std::uint64_t a, std::uint64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

/// The largest unit that loses nothing, or a coarser one when that would give too many states.
std::uint64_t choose_unit(std::span<const std::vector<Choice>> items, std::uint64_t budget,
                          std::size_t max_states) {
  std::uint64_t unit = 0;
  for (const auto& choices : items) {
    for (const Choice& choice : choices) unit = std::gcd(unit, choice.bytes);
  }
  unit = std::max<std::uint64_t>(unit, 1);
  return std::max(unit, divide_up(budget, max_states));
}

/// Keeps the states that no other beats in both bytes and damage, sorted by bytes.
void prune(std::vector<State>& states) {
  std::sort(states.begin(), states.end(), [](const State& a, const State& b) {
    if (a.units != b.units) return a.units < b.units;
    if (a.damage != b.damage) return a.damage < b.damage;
    return a.choice != b.choice ? a.choice < b.choice : a.previous < b.previous;
  });
  double best = INFINITY;
  std::size_t kept = 0;
  for (const State& state : states) {
    if (!(state.damage < best)) continue;
    best = state.damage;
    states[kept++] = state;
  }
  states.resize(kept);
}

std::vector<State> extend(const std::vector<State>& before, const std::vector<Choice>& choices,
                          std::uint64_t unit, std::uint64_t capacity) {
  std::vector<State> after;
  for (std::uint32_t c = 0; c < choices.size(); ++c) {
    WINNOW_CHECK(choices[c].damage >= 0 && std::isfinite(choices[c].damage));
    const std::uint64_t units = divide_up(choices[c].bytes, unit);
    for (std::uint32_t s = 0; s < before.size(); ++s) {
      const auto total = checked_add(before[s].units, units);
      if (!total || *total > capacity) break;  // states are sorted by bytes
      after.push_back({*total, before[s].damage + choices[c].damage, s, c});
    }
  }
  prune(after);
  return after;
}

}  // namespace

std::optional<std::vector<std::size_t>> solve_knapsack(std::span<const std::vector<Choice>> items,
                                                       std::uint64_t budget,
                                                       std::size_t max_states) {
  WINNOW_CHECK(max_states >= 1);
  const std::uint64_t unit = choose_unit(items, budget, max_states);
  const std::uint64_t capacity = budget / unit;
  std::vector<std::vector<State>> layers = {{{0, 0, 0, 0}}};
  for (const auto& choices : items) {
    layers.push_back(extend(layers.back(), choices, unit, capacity));
    if (layers.back().empty()) return std::nullopt;
  }
  std::vector<std::size_t> solution(items.size());
  // The last state has the most bytes and the least damage.
  std::size_t state = layers.back().size() - 1;
  for (std::size_t item = items.size(); item-- > 0;) {
    solution[item] = layers[item + 1][state].choice;
    state = layers[item + 1][state].previous;
  }
  return solution;
}

}  // namespace winnow::compress

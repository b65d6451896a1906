// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/knapsack.h"

#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "base/error.h"

namespace winnow::compress {
namespace {

using Items = std::span<const std::vector<Choice>>;
using Picks = std::vector<std::size_t>;

/// A partial solution over the first items.
struct State {
  std::uint64_t bytes = 0;
  double damage = 0;
  std::uint32_t previous = 0;  ///< index into the states of the item before, to walk back
  std::uint32_t choice = 0;
};

/// How a state came about; all that is kept of the items before, in as few bytes as do: there is
/// one for every state and item.
class Origin {
 public:
  static constexpr unsigned kPreviousBits = 17;
  static_assert(kMostStates == std::size_t{1} << kPreviousBits);
  static constexpr std::size_t kMostChoices = std::size_t{1} << (32 - kPreviousBits);

  explicit Origin(const State& state) : word_(state.choice << kPreviousBits | state.previous) {}
  std::size_t previous() const { return word_ & (kMostStates - 1); }
  std::size_t choice() const { return word_ >> kPreviousBits; }

 private:
  std::uint32_t word_;
};

std::optional<std::uint64_t> total_bytes(Items items, const Picks& picks) {
  std::optional<std::uint64_t> total = 0;
  for (std::size_t i = 0; total && i < items.size(); ++i) {
    total = checked_add(*total, items[i][picks[i]].bytes);
  }
  return total;
}

double total_damage(Items items, const Picks& picks) {
  double total = 0;
  for (std::size_t i = 0; i < items.size(); ++i) total += items[i][picks[i]].damage;
  return total;
}

/// Per item the least damage + price * bytes; ties to fewer bytes, then to the earlier choice.
Picks cheapest(Items items, double price) {
  Picks picks;
  for (const auto& choices : items) {
    const auto cost = [&](const Choice& c) {
      return c.damage + price * static_cast<double>(c.bytes);
    };
    const auto best =
        std::min_element(choices.begin(), choices.end(), [&](const Choice& a, const Choice& b) {
          return cost(a) != cost(b) ? cost(a) < cost(b) : a.bytes < b.bytes;
        });
    picks.push_back(static_cast<std::size_t>(best - choices.begin()));
  }
  return picks;
}

Picks smallest(Items items) {
  Picks picks;
  for (const auto& choices : items) {
    const auto best =
        std::min_element(choices.begin(), choices.end(), [](const Choice& a, const Choice& b) {
          return a.bytes != b.bytes ? a.bytes < b.bytes : a.damage < b.damage;
        });
    picks.push_back(static_cast<std::size_t>(best - choices.begin()));
  }
  return picks;
}

/// The lowest price of a byte (to within rounding) at which the cheapest choices fit the budget.
double fitting_price(Items items, std::uint64_t budget) {
  // A byte for this price or more is worth no choice's damage.
  double high = 1e-300;
  for (const auto& choices : items) {
    for (const Choice& choice : choices) high = std::max(high, choice.damage);
  }
  double low = 0;
  for (int step = 0; step < 200; ++step) {
    const double middle = 0.5 * (low + high);
    const auto bytes = total_bytes(items, cheapest(items, middle));
    (bytes && *bytes <= budget ? high : low) = middle;
  }
  return high;
}

/// Spends what is left on the largest single gains.
void fill(Items items, std::uint64_t budget, Picks& picks) {
  std::uint64_t left = budget - total_bytes(items, picks).value();
  for (;;) {
    double best_gain = 0;
    std::size_t item = 0;
    std::size_t choice = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
      const Choice& now = items[i][picks[i]];
      for (std::size_t c = 0; c < items[i].size(); ++c) {
        const Choice& other = items[i][c];
        const bool fits = other.bytes <= now.bytes || other.bytes - now.bytes <= left;
        if (!fits || now.damage - other.damage <= best_gain) continue;
        best_gain = now.damage - other.damage;
        item = i;
        choice = c;
      }
    }
    if (best_gain <= 0) return;
    left = left + items[item][picks[item]].bytes - items[item][choice].bytes;
    picks[item] = choice;
  }
}

/// The dynamic programme, cut by bounds.
class KnapsackSearch {
 public:
  KnapsackSearch(Items items, std::uint64_t budget, double price, double upper,
                 std::size_t max_states);
  /// The best solution found, or nothing when every state was cut.
  std::optional<Picks> run();

 private:
  /// No completion of the state has less damage: what is left of the budget is sold at `price_`.
  double bound(const State& state, std::size_t next) const {
    return state.damage + rest_cost_[next] - price_ * static_cast<double>(budget_ - state.bytes);
  }
  std::vector<State> extend(const std::vector<State>& before, std::size_t item) const;
  void thin(std::vector<State>& states, std::size_t next) const;

  Items items_;
  std::uint64_t budget_;
  double price_;
  double upper_;
  std::size_t max_states_;
  std::vector<std::uint64_t> rest_bytes_;  // least bytes of the items from i on
  std::vector<double> rest_cost_;          // least damage + price * bytes of the items from i on
};

KnapsackSearch::KnapsackSearch(Items items, std::uint64_t budget, double price, double upper,
                               std::size_t max_states)
    : items_(items),
      budget_(budget),
      price_(price),
      max_states_(max_states),
      rest_bytes_(items.size() + 1),
      rest_cost_(items.size() + 1) {
  for (std::size_t i = items.size(); i-- > 0;) {
    std::uint64_t least = items[i][0].bytes;
    double cost = INFINITY;
    for (const Choice& choice : items[i]) {
      least = std::min(least, choice.bytes);
      cost = std::min(cost, choice.damage + price * static_cast<double>(choice.bytes));
    }
    rest_bytes_[i] = rest_bytes_[i + 1] + least;
    rest_cost_[i] = rest_cost_[i + 1] + cost;
  }
  // Sums in another order may differ by rounding, which must not cut the optimum.
  const double scale = upper + rest_cost_[0] + price * static_cast<double>(budget);
  upper_ = upper + 1e-12 * scale;
}

/// Keeps the states that no other beats in both bytes and damage, sorted by bytes.
void prune(std::vector<State>& states) {
  std::sort(states.begin(), states.end(), [](const State& a, const State& b) {
    if (a.bytes != b.bytes) return a.bytes < b.bytes;
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

std::vector<State> KnapsackSearch::extend(const std::vector<State>& before,
                                          std::size_t item) const {
  std::vector<State> after;
  const std::uint64_t capacity = budget_ - rest_bytes_[item + 1];
  for (std::uint32_t c = 0; c < items_[item].size(); ++c) {
    const Choice& choice = items_[item][c];
    for (std::uint32_t s = 0; s < before.size(); ++s) {
      const auto total = checked_add(before[s].bytes, choice.bytes);
      if (!total || *total > capacity) break;  // states are sorted by bytes
      const State state{*total, before[s].damage + choice.damage, s, c};
      if (bound(state, item + 1) <= upper_) after.push_back(state);
    }
    if (after.size() > 4 * max_states_)
      prune(after);  // so that all choices are never there at once
  }
  prune(after);
  if (after.size() > max_states_) thin(after, item + 1);
  return after;
}

/// Keeps the most promising states, in order of bytes.
void KnapsackSearch::thin(std::vector<State>& states, std::size_t next) const {
  std::vector<double> bounds;
  for (const State& state : states) bounds.push_back(bound(state, next));
  std::vector<double> sorted = bounds;
  const auto last = sorted.begin() + static_cast<std::ptrdiff_t>(max_states_ - 1);
  std::nth_element(sorted.begin(), last, sorted.end());
  std::size_t kept = 0;
  for (std::size_t s = 0; s < states.size() && kept < max_states_; ++s) {
    if (bounds[s] <= *last) states[kept++] = states[s];
  }
  states.resize(kept);
}

std::optional<Picks> KnapsackSearch::run() {
  std::vector<State> states = {{}};
  std::vector<std::vector<Origin>> origins;
  for (std::size_t item = 0; item < items_.size(); ++item) {
    states = extend(states, item);
    if (states.empty()) return std::nullopt;
    origins.emplace_back();
    origins.back().reserve(states.size());
    for (const State& state : states) origins.back().emplace_back(state);
  }
  Picks picks(items_.size());
  // The last state has the most bytes and the least damage.
  std::size_t state = states.size() - 1;
  for (std::size_t item = items_.size(); item-- > 0;) {
    picks[item] = origins[item][state].choice();
    state = origins[item][state].previous();
  }
  return picks;
}

}  // namespace

std::size_t most_states(std::size_t items) {
  constexpr std::size_t kInAll = (std::size_t{32} << 20) / sizeof(Origin);
  return std::clamp<std::size_t>(kInAll / std::max<std::size_t>(items, 1), 1, kMostStates);
}

Bytes knapsack_memory(std::size_t items) {
  const std::size_t states = most_states(items);
  // What has been decided, and the states before and after an item: five times as many for a
  // moment.
  return {items * states * sizeof(Origin) + 6 * states * sizeof(State)};
}

std::optional<Picks> solve_knapsack(Items items, std::uint64_t budget, std::size_t max_states) {
  WINNOW_CHECK(max_states >= 1 && max_states <= kMostStates);
  for (const auto& choices : items) {
    WINNOW_CHECK(!choices.empty() && choices.size() <= Origin::kMostChoices);
    for (const Choice& choice : choices) {
      WINNOW_CHECK(choice.damage >= 0 && std::isfinite(choice.damage));
    }
  }
  const auto least = total_bytes(items, smallest(items));
  if (!least || *least > budget) return std::nullopt;
  const Picks best = cheapest(items, 0);
  if (const auto bytes = total_bytes(items, best); bytes && *bytes <= budget) return best;

  const double price = fitting_price(items, budget);
  Picks known = cheapest(items, price);
  // Where one byte is worth more than any price in f64, the smallest choices fit.
  if (const auto bytes = total_bytes(items, known); !bytes || *bytes > budget) {
    known = smallest(items);
  }
  fill(items, budget, known);
  const double upper = total_damage(items, known);
  const auto found = KnapsackSearch(items, budget, price, upper, max_states).run();
  return found && total_damage(items, *found) <= upper ? found : known;
}

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/replay.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <limits>
#include <numeric>
#include <set>
#include <utility>
#include <vector>

#include "base/error.h"

namespace winnow::experts {
namespace {

/// Calls visit(ExpertKey, place) for every choice of the trace, places [tokens, layers, top_k]
/// rising.
template <typename Visit>
void for_each_choice(const RouteTrace& trace, Visit visit) {
  for (std::size_t place = 0; place < trace.experts.size(); ++place) {
    if (trace.experts[place] == RouteTrace::kNone) continue;
    const LayerId layer = trace.layers[place / trace.top_k % trace.layers.size()];
    visit(ExpertKey{layer, ExpertId{trace.experts[place]}}, place);
  }
}

std::vector<std::uint64_t> count_uses(const RouteTrace& trace, const CacheShape& shape) {
  std::vector<std::uint64_t> uses(shape.num_keys());
  for_each_choice(trace, [&](ExpertKey key, std::size_t) { ++uses[shape.number(key)]; });
  return uses;
}

constexpr std::size_t kNever = std::numeric_limits<std::size_t>::max();

/// For every choice the place of the next choice of the same expert.
std::vector<std::size_t> next_uses(const RouteTrace& trace, const CacheShape& shape) {
  std::vector<std::size_t> next(trace.experts.size(), kNever);
  std::vector<std::size_t> last(shape.num_keys(), kNever);
  for_each_choice(trace, [&](ExpertKey key, std::size_t place) {
    std::size_t& former = last[shape.number(key)];
    if (former != kNever) next[former] = place;
    former = place;
  });
  return next;
}

class Belady {
 public:
  Belady(const RouteTrace& trace, const CacheShape& shape)
      : trace_(trace),
        shape_(shape),
        next_uses_(next_uses(trace, shape)),
        next_of_(shape.num_keys(), kAbsent) {}

  CacheCounts run() {
    for (std::size_t row = 0; row < trace_.experts.size(); row += trace_.top_k) request(row);
    return counts_;
  }

 private:
  static constexpr std::size_t kAbsent = kNever - 1;

  /// Choices of the row leave the order of eviction before anything is evicted for them.
  void request(std::size_t row) {
    std::size_t misses = 0;
    const LayerId layer = trace_.layers[row / trace_.top_k % trace_.layers.size()];
    std::size_t count = 0;
    for (; count < trace_.top_k && trace_.experts[row + count] != RouteTrace::kNone; ++count) {
      const std::size_t number = number_of(layer, row + count);
      misses += next_of_[number] == kAbsent ? 1 : 0;
      if (next_of_[number] != kAbsent) order_.erase({next_of_[number], number});
    }
    counts_.misses += misses;
    counts_.hits += count - misses;
    while (order_.size() + count > shape_.slots) evict();
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t number = number_of(layer, row + i);
      next_of_[number] = next_uses_[row + i];
      order_.emplace(next_of_[number], number);
    }
  }
  std::size_t number_of(LayerId layer, std::size_t place) const {
    return shape_.number({layer, ExpertId{trace_.experts[place]}});
  }
  void evict() {
    const auto farthest = std::prev(order_.end());
    next_of_[farthest->second] = kAbsent;
    order_.erase(farthest);
    ++counts_.evictions;
  }

  const RouteTrace& trace_;
  CacheShape shape_;
  std::vector<std::size_t> next_uses_;
  std::vector<std::size_t> next_of_;                     // [num_keys], of residents
  std::set<std::pair<std::size_t, std::size_t>> order_;  // (next use, number) of residents
  CacheCounts counts_;
};

}  // namespace

CacheShape shape_of(const RouteTrace& trace, std::size_t slots) {
  if (slots < trace.top_k) {
    fail(ErrorCode::kUsage, "{} slots cannot hold the {} experts that a token uses in a layer",
         slots, trace.top_k);
  }
  return {trace.num_layers, trace.num_experts, trace.top_k, slots};
}

CacheCounts replay(const RouteTrace& trace, const PolicyEntry& policy, std::size_t slots,
                   std::uint64_t seed) {
  const CacheShape shape = shape_of(trace, slots);
  SimulatedCache cache(shape, policy.make(shape, seed));
  auto sequence = trace.sequences.begin();
  std::vector<ExpertId> experts;
  for (std::size_t token = 0; token < trace.tokens(); ++token) {
    if (sequence != trace.sequences.end() && *sequence == token) {
      cache.begin_sequence();
      ++sequence;
    }
    cache.begin_pass();
    for (std::size_t i = 0; i < trace.layers.size(); ++i) {
      trace.choices(token, i, experts);
      cache.request(trace.layers[i], experts);
    }
  }
  return cache.counts();
}

CacheCounts replay_belady(const RouteTrace& trace, std::size_t slots) {
  return Belady(trace, shape_of(trace, slots)).run();
}

CacheCounts replay_static_optimum(const RouteTrace& trace, std::size_t slots) {
  std::vector<std::uint64_t> uses = count_uses(trace, shape_of(trace, slots));
  std::sort(uses.begin(), uses.end(), std::greater<>());
  const auto kept = static_cast<std::ptrdiff_t>(std::min(slots, uses.size()));
  const std::uint64_t all = std::accumulate(uses.begin(), uses.end(), std::uint64_t{0});
  const std::uint64_t hits = std::accumulate(uses.begin(), uses.begin() + kept, std::uint64_t{0});
  return {.hits = hits, .misses = all - hits};
}

std::size_t distinct_experts(const RouteTrace& trace) {
  const auto uses = count_uses(trace, shape_of(trace, trace.top_k));
  return uses.size() - static_cast<std::size_t>(std::count(uses.begin(), uses.end(), 0));
}

}  // namespace winnow::experts

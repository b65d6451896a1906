// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Runs other policies over ids beside the one in use, and says when one of them does better. All
// are simulated, the one in use too, so that what a predictor reads counts for none of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "experts/cache_policy.h"
#include "experts/simulated_cache.h"

namespace winnow::experts {

struct ShadowOptions {
  double lead = 0.02;             ///< hit rate by which another has to be better, in [0, 1]
  std::uint64_t requests = 2000;  ///< layer requests that a comparison is over, >= 1
  std::uint64_t seed = 0;         ///< of policies that draw
};

/// Belongs to one thread. Costs what the policies cost, and a few bytes per expert and policy.
class ShadowCaches {
 public:
  /// candidates: distinct, among them `active`; borrowed.
  ShadowCaches(const CacheShape& shape, std::span<const PolicyEntry* const> candidates,
               const PolicyEntry& active, const ShadowOptions& options);

  void begin_sequence();
  void begin_pass();
  void on_request(LayerId layer, std::span<const ExpertId> experts);

  /// The policy to use from now on: another one where it was better by more than the lead in the
  /// last full period, the best one if several were (the first of equals). To be asked after each
  /// pass; its answer is then the active policy of the comparisons that follow. Whoever uses it
  /// sees to it that the new policy knows what has a slot.
  const PolicyEntry& choose();
  const PolicyEntry& active() const { return *shadows_[active_].entry; }

 private:
  struct Shadow {
    const PolicyEntry* entry;
    SimulatedCache cache;
    std::uint64_t hits_before = 0;  // the present period
    double hit_rate = 0;            // of the last period
  };
  void end_period();

  ShadowOptions options_;
  std::vector<Shadow> shadows_;
  std::size_t active_ = 0;
  std::uint64_t requests_ = 0;  // of the present period
  std::uint64_t experts_ = 0;   // that these asked for
  bool has_news_ = false;       // a period has ended since the last choice
};

}  // namespace winnow::experts

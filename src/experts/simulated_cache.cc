// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/simulated_cache.h"

#include <utility>

#include "base/error.h"

namespace winnow::experts {

SimulatedCache::SimulatedCache(const CacheShape& shape, std::unique_ptr<CachePolicy> policy)
    : slots_(shape.slots), policy_(std::move(policy)), residents_(shape), locked_(shape) {}

void SimulatedCache::request(LayerId layer, std::span<const ExpertId> experts) {
  policy_->on_request(layer, experts);
  for (const ExpertId expert : experts) locked_.insert({layer, expert});
  for (const ExpertId expert : experts) {
    if (residents_.contains({layer, expert})) {
      ++counts_.hits;
    } else {
      ++counts_.misses;
      admit({layer, expert});
    }
  }
  for (const ExpertId expert : experts) locked_.erase({layer, expert});
}

void SimulatedCache::admit(ExpertKey key) {
  if (residents_.size() == slots_) {
    const auto victim = policy_->victim(key, Origin::kDemand, locked_);
    if (!victim) return;
    WINNOW_CHECK(!locked_.contains(*victim) && residents_.erase(*victim));
    policy_->on_evict(*victim);
    ++counts_.evictions;
  }
  residents_.insert(key);
  policy_->on_admit(key, Origin::kDemand);
}

}  // namespace winnow::experts

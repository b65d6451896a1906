// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/shadow_caches.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace winnow::experts {

ShadowCaches::ShadowCaches(const CacheShape& shape, std::span<const PolicyEntry* const> candidates,
                           const PolicyEntry& active, const ShadowOptions& options)
    : options_(options) {
  for (const PolicyEntry* entry : candidates) {
    shadows_.push_back({entry, SimulatedCache(shape, entry->make(shape, options.seed))});
  }
  const auto found = std::find(candidates.begin(), candidates.end(), &active);
  WINNOW_CHECK(found != candidates.end());
  active_ = static_cast<std::size_t>(found - candidates.begin());
}

void ShadowCaches::begin_sequence() {
  for (Shadow& shadow : shadows_) shadow.cache.begin_sequence();
}

void ShadowCaches::begin_pass() {
  for (Shadow& shadow : shadows_) shadow.cache.begin_pass();
}

void ShadowCaches::on_request(LayerId layer, std::span<const ExpertId> experts) {
  for (Shadow& shadow : shadows_) shadow.cache.request(layer, experts);
  experts_ += experts.size();
  if (++requests_ == options_.requests) end_period();
}

void ShadowCaches::end_period() {
  for (Shadow& shadow : shadows_) {
    const std::uint64_t hits = shadow.cache.counts().hits;
    shadow.hit_rate = experts_ == 0 ? 0
                                    : static_cast<double>(hits - shadow.hits_before) /
                                          static_cast<double>(experts_);
    shadow.hits_before = hits;
  }
  requests_ = experts_ = 0;
  has_news_ = true;
}

const PolicyEntry& ShadowCaches::choose() {
  if (!std::exchange(has_news_, false)) return active();
  const auto best =
      std::max_element(shadows_.begin(), shadows_.end(),
                       [](const Shadow& a, const Shadow& b) { return a.hit_rate < b.hit_rate; });
  if (best->hit_rate > shadows_[active_].hit_rate + options_.lead) {
    active_ = static_cast<std::size_t>(best - shadows_.begin());
  }
  return active();
}

}  // namespace winnow::experts

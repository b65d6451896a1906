// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The policy that would have done best lately: which one that is depends on the model's routes and
// on how much fits. A few are simulated over ids all the time (see shadow_caches.h); each has a
// twin that hears what the real cache does, so that it takes over with all it has learnt.
#include <algorithm>
#include <array>
#include <vector>

#include "experts/cache_policy.h"
#include "experts/shadow_caches.h"

namespace winnow::experts {
namespace {

// The first is in use until another has proved better; the last is immune to cycles.
constexpr std::array kCandidates = {"sequence-matching", "predicted-demand", "lfru",
                                    "segmented-lru", "random-subset"};
// The first looks at every resident when one has to leave: with thousands of them that takes
// milliseconds a token, and the second is as good where routes have no pattern.
constexpr std::size_t kMostSlotsOfTheFirst = 1024;
// Changing over costs nothing, so that a small lead is worth it.
constexpr double kLead = 0.005;

std::vector<const PolicyEntry*> candidates(const CacheShape& shape) {
  std::vector<const PolicyEntry*> entries;
  entries.reserve(kCandidates.size());
  for (const std::string_view name : kCandidates) entries.push_back(&find_cache_policy(name));
  if (shape.slots > kMostSlotsOfTheFirst) entries.erase(entries.begin());
  return entries;
}

class Adaptive final : public CachePolicy {
 public:
  Adaptive(const CacheShape& shape, std::uint64_t seed)
      : candidates_(candidates(shape)),
        shadows_(shape, candidates_, *candidates_.front(), {.lead = kLead, .seed = seed}) {
    for (const PolicyEntry* entry : candidates_) twins_.push_back(entry->make(shape, seed));
    active_ = twins_.front().get();
  }

  void begin_sequence() override {
    shadows_.begin_sequence();
    for (const auto& twin : twins_) twin->begin_sequence();
  }
  void begin_pass() override {
    const auto best = std::find(candidates_.begin(), candidates_.end(), &shadows_.choose());
    active_ = twins_[static_cast<std::size_t>(best - candidates_.begin())].get();
    shadows_.begin_pass();
    for (const auto& twin : twins_) twin->begin_pass();
  }
  void on_request(LayerId layer, std::span<const ExpertId> experts) override {
    shadows_.on_request(layer, experts);
    for (const auto& twin : twins_) twin->on_request(layer, experts);
  }
  void on_prediction(LayerId layer, std::span<const ExpertId> experts) override {
    for (const auto& twin : twins_) twin->on_prediction(layer, experts);
  }
  void on_admit(ExpertKey key, Origin origin) override {
    for (const auto& twin : twins_) twin->on_admit(key, origin);
  }
  void on_evict(ExpertKey key) override {
    for (const auto& twin : twins_) twin->on_evict(key);
  }
  std::optional<ExpertKey> victim(ExpertKey incoming, Origin origin,
                                  const KeySet& locked) const override {
    return active_->victim(incoming, origin, locked);
  }

 private:
  std::vector<const PolicyEntry*> candidates_;
  ShadowCaches shadows_;
  std::vector<std::unique_ptr<CachePolicy>> twins_;  // one per candidate
  const CachePolicy* active_;
};

}  // namespace

extern const PolicyEntry kAdaptive{"adaptive", "shadow simulation of others",
                                   [](const CacheShape& shape, std::uint64_t seed) {
                                     return std::unique_ptr<CachePolicy>(new Adaptive(shape, seed));
                                   }};

}  // namespace winnow::experts

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The expert that was not used for the longest time leaves, whatever its layer. As in the caches of
// PowerInfer's SmallThinker engine. With fewer slots than a token uses it never hits: layers come
// round in a circle, and what is needed next was used the longest time ago.
#include "experts/cache_policy.h"
#include "experts/recency_list.h"

namespace winnow::experts {
namespace {

class Lru final : public CachePolicy {
 public:
  explicit Lru(const CacheShape& shape) : residents_(shape) {}

  void on_request(LayerId layer, std::span<const ExpertId> experts) override {
    for (const ExpertId expert : experts) {
      const ExpertKey key{layer, expert};
      if (!residents_.contains(key)) continue;
      residents_.remove(key);
      residents_.push_hot(key);
    }
  }
  void on_admit(ExpertKey key, Origin origin) override {
    origin == Origin::kPrefill ? residents_.push_cold(key) : residents_.push_hot(key);
  }
  void on_evict(ExpertKey key) override { residents_.remove(key); }
  std::optional<ExpertKey> victim(ExpertKey /*incoming*/, Origin /*origin*/,
                                  const KeySet& locked) const override {
    return residents_.coldest_unlocked(locked);
  }

 private:
  RecencyList residents_;
};

}  // namespace

extern const PolicyEntry kLru{"lru", "a baseline", [](const CacheShape& shape, std::uint64_t) {
                                return std::unique_ptr<CachePolicy>(new Lru(shape));
                              }};

}  // namespace winnow::experts

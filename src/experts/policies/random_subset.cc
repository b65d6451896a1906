// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A fixed random subset of the experts stays, the others pass through the slots that are left. Its
// hit rate is the share of the experts that it holds, whatever the order of requests: the policy
// for memory below what one token uses, where every policy by recency has no hits at all.
#include <set>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "experts/cache_policy.h"

namespace winnow::experts {
namespace {

/// An event costs O(log slots).
class RandomSubset final : public CachePolicy {
 public:
  RandomSubset(const CacheShape& shape, std::uint64_t seed)
      : shape_(shape), ranks_(shape.num_keys()) {
    Rng rng(seed);
    for (double& rank : ranks_) rank = rng.uniform();
  }

  void on_request(LayerId /*layer*/, std::span<const ExpertId> /*experts*/) override {}
  void on_admit(ExpertKey key, Origin /*origin*/) override { residents_.emplace(rank(key), key); }
  void on_evict(ExpertKey key) override { residents_.erase({rank(key), key}); }
  /// The lowest rank leaves, so that the highest of all keys that ever came stay: ranks need not
  /// know which experts exist.
  std::optional<ExpertKey> victim(ExpertKey incoming, Origin origin,
                                  const KeySet& locked) const override {
    for (const auto& [rank_of_key, key] : residents_) {
      if (locked.contains(key)) continue;
      if (origin == Origin::kSpeculation && rank_of_key > rank(incoming)) return std::nullopt;
      return key;
    }
    return std::nullopt;
  }

 private:
  double rank(ExpertKey key) const { return ranks_[shape_.number(key)]; }

  CacheShape shape_;
  std::set<std::pair<double, ExpertKey>> residents_;  // the lowest rank first
  std::vector<double> ranks_;                         // [num_keys]
};

}  // namespace

extern const PolicyEntry kRandomSubset{
    "random-subset", "for memory below one token's experts",
    [](const CacheShape& shape, std::uint64_t seed) {
      return std::unique_ptr<CachePolicy>(new RandomSubset(shape, seed));
    }};

}  // namespace winnow::experts

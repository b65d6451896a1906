// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A fixed random subset of the experts stays, the others pass through the slots that are left. Its
// hit rate is the share of the experts that it holds, whatever the order of requests: the policy
// for memory below what one token uses, where every policy by recency has no hits at all.
#include "base/rng.h"
#include "experts/cache_policy.h"
#include "experts/resident_keys.h"

namespace winnow::experts {
namespace {

class RandomSubset final : public CachePolicy {
 public:
  RandomSubset(const CacheShape& shape, std::uint64_t seed)
      : shape_(shape), residents_(shape), ranks_(shape.num_keys()) {
    Rng rng(seed);
    for (double& rank : ranks_) rank = rng.uniform();
  }

  void on_request(LayerId /*layer*/, std::span<const ExpertId> /*experts*/) override {}
  void on_admit(ExpertKey key, Origin /*origin*/) override { residents_.insert(key); }
  void on_evict(ExpertKey key) override { residents_.erase(key); }
  /// The lowest rank leaves, so that the highest of all keys that ever came stay: ranks need not
  /// know which experts exist.
  std::optional<ExpertKey> victim(ExpertKey incoming, Origin origin,
                                  const KeySet& locked) const override {
    const auto lowest = residents_.lowest(locked, [&](ExpertKey key) { return rank(key); });
    const bool is_worth_more = lowest && rank(*lowest) > rank(incoming);
    if (origin == Origin::kSpeculation && is_worth_more) return std::nullopt;
    return lowest;
  }

 private:
  double rank(ExpertKey key) const { return ranks_[shape_.number(key)]; }

  CacheShape shape_;
  ResidentKeys residents_;
  std::vector<double> ranks_;  // [num_keys]
};

}  // namespace

extern const PolicyEntry kRandomSubset{
    "random-subset", "for memory below one token's experts",
    [](const CacheShape& shape, std::uint64_t seed) {
      return std::unique_ptr<CachePolicy>(new RandomSubset(shape, seed));
    }};

}  // namespace winnow::experts

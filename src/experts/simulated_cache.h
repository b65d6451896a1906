// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A cache of ids: what a policy would do with a number of slots, without any expert's bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "experts/cache_policy.h"

namespace winnow::experts {

struct CacheCounts {
  std::uint64_t hits = 0;
  std::uint64_t misses = 0;
  std::uint64_t evictions = 0;

  std::uint64_t requests() const { return hits + misses; }
  /// In [0, 1]; 0 before the first request.
  double hit_rate() const {
    return requests() == 0 ? 0 : static_cast<double>(hits) / static_cast<double>(requests());
  }
  friend bool operator==(const CacheCounts&, const CacheCounts&) = default;
};

/// Reads on demand only. A request of more experts than there are slots leaves some of them out.
class SimulatedCache {
 public:
  SimulatedCache(const CacheShape& shape, std::unique_ptr<CachePolicy> policy);

  void begin_sequence() { policy_->begin_sequence(); }
  void begin_pass() { policy_->begin_pass(); }
  /// Distinct experts. Throws Error{kInternal} when the policy breaks its contract.
  void request(LayerId layer, std::span<const ExpertId> experts);

  const CacheCounts& counts() const { return counts_; }
  const KeySet& residents() const { return residents_; }

 private:
  void admit(ExpertKey key);

  std::size_t slots_;
  std::unique_ptr<CachePolicy> policy_;
  KeySet residents_;
  KeySet locked_;  // the present request's
  CacheCounts counts_;
};

}  // namespace winnow::experts

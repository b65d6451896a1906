// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// For the tests of policies: a policy with numbers for ids.
#pragma once

#include <initializer_list>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "experts/cache_policy.h"

namespace winnow::experts::testing {

inline ExpertKey key(std::uint32_t layer, std::uint32_t expert) {
  return {LayerId{layer}, ExpertId{expert}};
}

class PolicyProbe {
 public:
  PolicyProbe(std::string_view name, const CacheShape& shape, std::uint64_t seed = 0)
      : policy_(find_cache_policy(name).make(shape, seed)), locked_(shape) {}

  CachePolicy& policy() { return *policy_; }
  void lock(ExpertKey locked) { locked_.insert(locked); }
  void admit(ExpertKey admitted, Origin origin = Origin::kDemand) {
    policy_->on_admit(admitted, origin);
  }
  void evict(ExpertKey evicted) { policy_->on_evict(evicted); }
  void request(std::uint32_t layer, std::initializer_list<std::uint32_t> experts) {
    std::vector<ExpertId> ids;
    for (const std::uint32_t expert : experts) ids.push_back(ExpertId{expert});
    policy_->on_request(LayerId{layer}, ids);
  }
  /// As often as said, a pass each.
  void use(std::uint32_t times, ExpertKey used) {
    for (std::uint32_t i = 0; i < times; ++i) {
      policy_->begin_pass();
      request(index(used.layer), {index(used.expert)});
    }
  }
  std::optional<ExpertKey> victim(ExpertKey incoming, Origin origin = Origin::kDemand) const {
    return policy_->victim(incoming, origin, locked_);
  }

 private:
  std::unique_ptr<CachePolicy> policy_;
  KeySet locked_;
};

}  // namespace winnow::experts::testing

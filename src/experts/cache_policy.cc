// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/cache_policy.h"

#include <array>

#include "base/error.h"

namespace winnow::experts {

#define POLICY(policy) extern const PolicyEntry policy;
#include "experts/policies/registry.def"
#undef POLICY

std::span<const PolicyEntry* const> cache_policies() {
  static constexpr std::array kAll = {
#define POLICY(policy) &policy,
#include "experts/policies/registry.def"
#undef POLICY
  };
  return kAll;
}

const PolicyEntry& find_cache_policy(std::string_view name) {
  for (const PolicyEntry* policy : cache_policies()) {
    if (policy->name == name) return *policy;
  }
  fail(ErrorCode::kUsage, "there is no cache policy '{}'; there are {}", name,
       cache_policy_names());
}

std::string cache_policy_names() {
  std::string names;
  for (const PolicyEntry* policy : cache_policies()) {
    names.append(names.empty() ? "" : ", ").append(policy->name);
  }
  return names;
}

}  // namespace winnow::experts

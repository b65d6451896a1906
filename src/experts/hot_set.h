// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Which experts are asked for most, so that another run can begin with them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "experts/cache_policy.h"
#include "experts/store.h"

namespace winnow::experts {

class HotSet {
 public:
  explicit HotSet(const CacheShape& shape) : shape_(shape), uses_(shape.num_keys()) {}

  void count(ExpertKey key) { ++uses_[shape_.number(key)]; }
  /// By uses, the most first, ties to the lower key; those without any left out.
  std::vector<ExpertUses> hottest() const;

  /// Half of these uses count from the beginning, so that what is no longer used fades from run to
  /// run. What the shape has no key for is ignored.
  void warm_up(std::span<const ExpertUses> hottest);
  /// The next of them, each once.
  std::optional<ExpertKey> next();

 private:
  CacheShape shape_;
  std::vector<std::uint64_t> uses_;  // by key
  std::vector<ExpertKey> waiting_;   // the next one is the last
};

}  // namespace winnow::experts

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/hot_set.h"

#include <algorithm>

namespace winnow::experts {

std::vector<ExpertUses> HotSet::hottest() const {
  std::vector<ExpertUses> hottest;
  for (std::size_t number = 0; number < uses_.size(); ++number) {
    if (uses_[number] == 0) continue;
    const ExpertKey key = shape_.key(number);
    hottest.push_back({key.layer, key.expert, uses_[number]});
  }
  std::stable_sort(hottest.begin(), hottest.end(),
                   [](const ExpertUses& a, const ExpertUses& b) { return a.uses > b.uses; });
  return hottest;
}

void HotSet::warm_up(std::span<const ExpertUses> hottest) {
  waiting_.clear();
  for (const ExpertUses& hot : hottest) {
    if (index(hot.layer) >= shape_.num_layers || index(hot.expert) >= shape_.num_experts) continue;
    const ExpertKey key{hot.layer, hot.expert};
    uses_[shape_.number(key)] += hot.uses / 2;
    waiting_.push_back(key);
  }
  std::reverse(waiting_.begin(), waiting_.end());
}

std::optional<ExpertKey> HotSet::next() {
  if (waiting_.empty()) return std::nullopt;
  const ExpertKey key = waiting_.back();
  waiting_.pop_back();
  return key;
}

}  // namespace winnow::experts

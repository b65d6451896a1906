// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/recency_list.h"

#include "base/error.h"

namespace winnow::experts {

RecencyList::RecencyList(const CacheShape& shape) : shape_(shape), links_(shape.num_keys() + 1) {
  links_[end()] = {end(), end(), true};
}

void RecencyList::link_before(std::size_t number, std::size_t next) {
  WINNOW_CHECK(!links_[number].is_linked);
  const std::size_t previous = links_[next].previous;
  links_[number] = {previous, next, true};
  links_[previous].next = number;
  links_[next].previous = number;
  ++size_;
}

void RecencyList::remove(ExpertKey key) {
  Link& link = links_[shape_.number(key)];
  WINNOW_CHECK(link.is_linked);
  links_[link.previous].next = link.next;
  links_[link.next].previous = link.previous;
  link.is_linked = false;
  --size_;
}

std::optional<ExpertKey> RecencyList::coldest_unlocked(const KeySet& locked) const {
  for (std::size_t at = links_[end()].next; at != end(); at = links_[at].next) {
    if (!locked.contains(shape_.key(at))) return shape_.key(at);
  }
  return std::nullopt;
}

}  // namespace winnow::experts

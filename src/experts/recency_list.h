// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Keys in the order of their last use: what policies that go by recency are made of.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "experts/cache_policy.h"

namespace winnow::experts {

/// A doubly linked list over all keys of a shape. All operations are O(1), except that
/// `coldest_unlocked` passes over locked keys.
class RecencyList {
 public:
  explicit RecencyList(const CacheShape& shape);

  std::size_t size() const { return size_; }
  bool contains(ExpertKey key) const { return links_[shape_.number(key)].is_linked; }
  /// Puts the key, which is not in the list, at the hot or the cold end.
  void push_hot(ExpertKey key) { link_before(shape_.number(key), end()); }
  void push_cold(ExpertKey key) { link_before(shape_.number(key), links_[end()].next); }
  /// Requires contains(key).
  void remove(ExpertKey key);
  /// Requires size() > 0.
  ExpertKey coldest() const { return shape_.key(links_[end()].next); }
  std::optional<ExpertKey> coldest_unlocked(const KeySet& locked) const;

 private:
  struct Link {
    std::size_t previous = 0;  // colder
    std::size_t next = 0;      // hotter
    bool is_linked = false;
  };
  /// The list is a ring that this closes: the coldest key comes after it, the hottest before it.
  std::size_t end() const { return shape_.num_keys(); }
  void link_before(std::size_t number, std::size_t next);

  CacheShape shape_;
  std::vector<Link> links_;  // [num_keys + 1]
  std::size_t size_ = 0;
};

}  // namespace winnow::experts

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Keys that have a slot, by layer: what policies that score every expert are made of.
#pragma once

#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "experts/cache_policy.h"

namespace winnow::experts {

/// insert and erase are O(1), the search for a victim visits every resident.
class ResidentKeys {
 public:
  explicit ResidentKeys(const CacheShape& shape);

  bool contains(ExpertKey key) const { return place_[shape_.number(key)] != kNowhere; }
  /// Requires !contains(key) and contains(key).
  void insert(ExpertKey key);
  void erase(ExpertKey key);
  /// In no particular order.
  std::span<const ExpertId> of_layer(LayerId layer) const { return layers_[index(layer)]; }

  /// The unlocked key with the lowest score(key), a number that is no NaN; ties to the lower key.
  template <typename Score>
  std::optional<ExpertKey> lowest(const KeySet& locked, Score score) const {
    Best best;
    for (std::uint32_t l = 0; l < layers_.size(); ++l) offer(LayerId{l}, locked, score, best);
    return best.key;
  }
  template <typename Score>
  std::optional<ExpertKey> lowest_of_layer(LayerId layer, const KeySet& locked, Score score) const {
    Best best;
    offer(layer, locked, score, best);
    return best.key;
  }

 private:
  static constexpr std::size_t kNowhere = std::numeric_limits<std::size_t>::max();
  struct Best {
    std::optional<ExpertKey> key;
    double score = 0;
  };

  template <typename Score>
  void offer(LayerId layer, const KeySet& locked, Score& score, Best& best) const {
    for (const ExpertId expert : layers_[index(layer)]) {
      const ExpertKey key{layer, expert};
      if (locked.contains(key)) continue;
      const double value = score(key);
      if (best.key && (value > best.score || (value == best.score && key > *best.key))) continue;
      best = {key, value};
    }
  }

  CacheShape shape_;
  std::vector<std::vector<ExpertId>> layers_;
  std::vector<std::size_t> place_;  // [num_keys], in its layer
};

}  // namespace winnow::experts

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Finds control and user-defined tokens in text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/units.h"

namespace winnow::text {

/// A set of texts to look for. Immutable after the last `add`: threads may share it.
class AddedTokenFinder {
 public:
  struct Match {
    std::size_t begin, end;  ///< in the text, end exclusive
    TokenId id;
  };

  AddedTokenFinder() : nodes_(1) {}
  /// Looks for `text` too; an empty one is never found, of equal ones the first counts.
  void add(std::string_view text, TokenId id);
  /// The leftmost match that begins at `from` or later, of those that begin there the longest.
  /// O(text x longest added token).
  std::optional<Match> find(std::string_view text, std::size_t from) const;

 private:
  struct Node {                                                    // of a trie over bytes
    std::vector<std::pair<std::uint8_t, std::uint32_t>> children;  // sorted
    std::optional<TokenId> id;
  };
  std::optional<std::uint32_t> child(std::uint32_t node, std::uint8_t byte) const;

  std::vector<Node> nodes_;  // 0 is the root
};

}  // namespace winnow::text

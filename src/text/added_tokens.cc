// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A trie, walked from every position: added tokens are few, and short by check_spec.
#include "text/added_tokens.h"

#include <algorithm>

namespace winnow::text {

namespace {

const auto kByByte = [](const std::pair<std::uint8_t, std::uint32_t>& child, std::uint8_t byte) {
  return child.first < byte;
};

}  // namespace

void AddedTokenFinder::add(std::string_view text, TokenId id) {
  if (text.empty()) return;
  std::uint32_t node = 0;
  for (const char c : text) {
    const auto byte = static_cast<std::uint8_t>(c);
    std::optional<std::uint32_t> next = child(node, byte);
    if (!next) {
      next = static_cast<std::uint32_t>(nodes_.size());
      auto& children = nodes_[node].children;
      children.insert(std::lower_bound(children.begin(), children.end(), byte, kByByte),
                      {byte, *next});
      nodes_.emplace_back();
    }
    node = *next;
  }
  if (!nodes_[node].id) nodes_[node].id = id;
}

std::optional<std::uint32_t> AddedTokenFinder::child(std::uint32_t node, std::uint8_t byte) const {
  const auto& children = nodes_[node].children;
  const auto found = std::lower_bound(children.begin(), children.end(), byte, kByByte);
  if (found == children.end() || found->first != byte) return std::nullopt;
  return found->second;
}

std::optional<AddedTokenFinder::Match> AddedTokenFinder::find(std::string_view text,
                                                              std::size_t from) const {
  if (nodes_.size() == 1) return std::nullopt;
  for (std::size_t begin = from; begin < text.size(); ++begin) {
    std::optional<Match> longest;
    std::optional<std::uint32_t> node = 0;
    for (std::size_t at = begin; at < text.size(); ++at) {
      node = child(*node, static_cast<std::uint8_t>(text[at]));
      if (!node) break;
      if (nodes_[*node].id) longest = Match{begin, at + 1, *nodes_[*node].id};
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

}  // namespace winnow::text

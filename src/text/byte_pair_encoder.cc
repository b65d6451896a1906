// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Symbols in a doubly linked list, pairs that may merge in a heap. An entry of the heap is checked
// when it comes up, instead of being removed when a neighbour merges away: each merge adds at most
// two entries, so a word of n bytes costs O(n log n).
#include "text/byte_pair_encoder.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <tuple>
#include <utility>

#include "base/error.h"

namespace winnow::text {

namespace {

constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();

}  // namespace

BytePairEncoder::BytePairEncoder(const std::array<std::optional<TokenId>, 256>& byte_tokens,
                                 std::optional<TokenId> unknown, std::vector<Merge> merges,
                                 std::size_t vocab_size)
    : merges_(std::move(merges)), first_follower_(vocab_size + 1) {
  WINNOW_CHECK(merges_.size() < kNone);
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const std::optional<TokenId> id = byte_tokens[byte] ? byte_tokens[byte] : unknown;
    byte_tokens_[byte] = id ? index(*id) : -1;
    covers_all_bytes_ = covers_all_bytes_ && byte_tokens[byte].has_value();
  }
  std::vector<std::uint32_t> ranks(merges_.size());
  for (std::uint32_t rank = 0; rank < ranks.size(); ++rank) ranks[rank] = rank;
  // Among equal pairs the last one given comes first, and is the one that is kept.
  std::sort(ranks.begin(), ranks.end(), [&](std::uint32_t a, std::uint32_t b) {
    return std::tuple(merges_[a].left, merges_[a].right, b) <
           std::tuple(merges_[b].left, merges_[b].right, a);
  });
  const auto is_same_pair = [&](std::uint32_t a, std::uint32_t b) {
    return merges_[a].left == merges_[b].left && merges_[a].right == merges_[b].right;
  };
  ranks.erase(std::unique(ranks.begin(), ranks.end(), is_same_pair), ranks.end());
  followers_.reserve(ranks.size());
  for (const std::uint32_t rank : ranks) {
    followers_.push_back({index(merges_[rank].right), rank});
    ++first_follower_[static_cast<std::size_t>(index(merges_[rank].left)) + 1];
  }
  for (std::size_t id = 0; id < vocab_size; ++id) first_follower_[id + 1] += first_follower_[id];
}

std::optional<std::uint32_t> BytePairEncoder::find_rank(std::int32_t left,
                                                        std::int32_t right) const {
  const auto begin = followers_.begin() + first_follower_[static_cast<std::size_t>(left)];
  const auto end = followers_.begin() + first_follower_[static_cast<std::size_t>(left) + 1];
  const auto found = std::lower_bound(
      begin, end, right,
      [](const Follower& follower, std::int32_t id) { return follower.right < id; });
  return found != end && found->right == right ? std::optional(found->rank) : std::nullopt;
}

void BytePairEncoder::fill_symbols(std::string_view word, Workspace& workspace) const {
  if (word.size() >= kNone) {
    fail(ErrorCode::kUsage, "a word of {} bytes is too long; at most {} are supported", word.size(),
         kNone - 1);
  }
  const auto count = static_cast<std::uint32_t>(word.size());
  workspace.symbols.resize(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto byte = static_cast<std::uint8_t>(word[i]);
    if (byte_tokens_[byte] < 0) {
      fail_data("the vocabulary has no token for byte 0x{:02X} and no unknown token", byte);
    }
    workspace.symbols[i] = {byte_tokens_[byte], i == 0 ? kNone : i - 1,
                            i + 1 == count ? kNone : i + 1};
  }
}

void BytePairEncoder::add_candidate(std::uint32_t position, Workspace& workspace) const {
  const auto& symbol = workspace.symbols[position];
  if (symbol.next == kNone) return;
  const auto rank = find_rank(symbol.id, workspace.symbols[symbol.next].id);
  if (!rank) return;
  workspace.candidates.push_back(std::uint64_t{*rank} << 32 | position);
  std::push_heap(workspace.candidates.begin(), workspace.candidates.end(), std::greater<>());
}

void BytePairEncoder::merge_all(Workspace& workspace) const {
  auto& [symbols, candidates] = workspace;
  while (!candidates.empty()) {
    std::pop_heap(candidates.begin(), candidates.end(), std::greater<>());
    const auto rank = static_cast<std::uint32_t>(candidates.back() >> 32);
    const auto position = static_cast<std::uint32_t>(candidates.back());
    candidates.pop_back();
    auto& symbol = symbols[position];
    const Merge& merge = merges_[rank];
    if (symbol.id != index(merge.left) || symbol.next == kNone ||
        symbols[symbol.next].id != index(merge.right)) {
      continue;  // one of the two has merged since
    }
    auto& swallowed = symbols[symbol.next];
    symbol.id = index(merge.result);
    symbol.next = swallowed.next;
    swallowed.id = -1;
    if (symbol.next != kNone) symbols[symbol.next].previous = position;
    add_candidate(position, workspace);
    if (symbol.previous != kNone) add_candidate(symbol.previous, workspace);
  }
}

void BytePairEncoder::encode(std::string_view word, std::vector<TokenId>& out,
                             Workspace& workspace) const {
  fill_symbols(word, workspace);
  workspace.candidates.clear();
  for (std::uint32_t i = 0; i + 1 < workspace.symbols.size(); ++i) add_candidate(i, workspace);
  merge_all(workspace);
  for (const auto& symbol : workspace.symbols) {
    if (symbol.id >= 0) out.push_back(static_cast<TokenId>(symbol.id));
  }
}

}  // namespace winnow::text

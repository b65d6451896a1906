// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Byte-pair encoding of one word (Sennrich et al. 2016, arXiv:1508.07909): of all neighbours that
// may merge, the pair of the lowest rank does, the leftmost first, until none may.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/units.h"
#include "text/tokenizer_spec.h"

namespace winnow::text {

/// The merges, ready to look up. Immutable: threads may share it.
class BytePairEncoder {
 public:
  /// Buffers that calls of `encode` reuse; one per thread.
  struct Workspace {
    struct Symbol {
      std::int32_t id;  // -1: merged into its left neighbour
      std::uint32_t previous, next;
    };
    std::vector<Symbol> symbols;
    std::vector<std::uint64_t> candidates;  // heap of rank << 32 | position
  };

  /// byte_tokens: the token of each byte, nothing where the vocabulary has none, which `unknown`
  ///   then stands for
  /// merges: the most urgent first, ids in [0, vocab_size); of equal pairs the last counts
  BytePairEncoder(const std::array<std::optional<TokenId>, 256>& byte_tokens,
                  std::optional<TokenId> unknown, std::vector<Merge> merges,
                  std::size_t vocab_size);

  /// Appends the tokens of `word`, any bytes. O(n log n) for n bytes. Throws Error{kBadData} when
  /// a byte has no token and there is no unknown token, Error{kUsage} beyond 2^32 - 2 bytes.
  void encode(std::string_view word, std::vector<TokenId>& out, Workspace& workspace) const;

  /// Whether each byte has a token of its own.
  bool covers_all_bytes() const { return covers_all_bytes_; }

 private:
  struct Follower {  // what may stand to the right of some token
    std::int32_t right;
    std::uint32_t rank;
  };

  std::optional<std::uint32_t> find_rank(std::int32_t left, std::int32_t right) const;
  void fill_symbols(std::string_view word, Workspace& workspace) const;
  void add_candidate(std::uint32_t position, Workspace& workspace) const;
  void merge_all(Workspace& workspace) const;

  bool covers_all_bytes_ = true;
  std::array<std::int32_t, 256> byte_tokens_;  // -1: none
  std::vector<Merge> merges_;                  // [rank]
  std::vector<Follower> followers_;            // by left token, then by `right`
  std::vector<std::uint32_t> first_follower_;  // [vocab_size + 1] into followers_
};

}  // namespace winnow::text

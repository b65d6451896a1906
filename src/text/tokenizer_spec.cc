// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Checks of a TokenizerSpec, and the readings of it that checking and running share.
#include "text/tokenizer_spec.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "text/byte_alphabet.h"
#include "text/pre_tokenizer.h"
#include "text/utf8.h"

namespace winnow::text {

namespace {

void check_kind(const TokenizerSpec& spec, std::string_view name) {
  if (spec.model != "gpt2") {
    fail_data("{}: tokenizer model '{}' is not supported; expected 'gpt2' (byte-level BPE)", name,
              spec.model);
  }
  if (find_pre_tokenizer(spec.pre_tokenizer) == nullptr) {
    fail_data("{}: pre-tokenizer '{}' is not supported; known are: {}", name, spec.pre_tokenizer,
              pre_tokenizer_names());
  }
}

void check_token(const TokenizerSpec& spec, std::size_t i, std::string_view name) {
  const std::string& text = spec.tokens[i];
  const TokenType type = spec.token_types[i];
  if (type < TokenType::kNormal || type > TokenType::kByte) {
    fail_data("{}: token {} has type {}; expected 1 to 6", name, i, static_cast<int>(type));
  }
  if (valid_prefix(text) != text.size()) fail_data("{}: token {} is not valid UTF-8", name, i);
  if (is_added(type) && text.size() > kLongestAddedToken) {
    fail_data("{}: added token {} has {} bytes; at most {} are supported", name, i, text.size(),
              kLongestAddedToken);
  }
}

void check_tokens(const TokenizerSpec& spec, std::string_view name) {
  constexpr std::size_t kMostTokens = std::numeric_limits<std::int32_t>::max();
  if (spec.tokens.empty()) fail_data("{}: the vocabulary is empty", name);
  if (spec.tokens.size() > kMostTokens) {
    fail_data("{}: {} tokens; at most {} have an id", name, spec.tokens.size(), kMostTokens);
  }
  if (spec.tokens.size() != spec.token_types.size()) {
    fail_data("{}: {} tokens but {} token types", name, spec.tokens.size(),
              spec.token_types.size());
  }
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) check_token(spec, i, name);
}

bool is_in_vocabulary(const TokenizerSpec& spec, TokenId id) {
  return index(id) >= 0 && static_cast<std::size_t>(index(id)) < spec.tokens.size();
}

void check_special_ids(const TokenizerSpec& spec, std::string_view name) {
  const auto check = [&](std::string_view role, std::optional<TokenId> id) {
    if (!id || is_in_vocabulary(spec, *id)) return;
    fail_data("{}: the {} token is {}, but the vocabulary has {} tokens", name, role, index(*id),
              spec.tokens.size());
  };
  check("bos", spec.bos);
  check("eos", spec.eos);
  check("pad", spec.pad);
  check("unknown", spec.unknown);
  check("eot", spec.eot);
  if (spec.add_bos && !spec.bos)
    fail_data("{}: a bos token is to be added, but none is named", name);
  if (spec.add_eos && !spec.eos)
    fail_data("{}: an eos token is to be added, but none is named", name);
}

void check_normalized(const TokenizerSpec& spec, std::string_view name) {
  const std::vector<TokenId>& ids = spec.normalized_added_tokens;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (!is_in_vocabulary(spec, ids[i]) ||
        !is_added(spec.token_types[static_cast<std::size_t>(index(ids[i]))]) ||
        (i > 0 && ids[i] <= ids[i - 1])) {
      fail_data("{}: normalized added token {} is not an added token, or not in ascending order",
                name, index(ids[i]));
    }
  }
}

}  // namespace

void check_spec(const TokenizerSpec& spec, std::string_view name) {
  check_kind(spec, name);
  check_tokens(spec, name);
  check_special_ids(spec, name);
  check_normalized(spec, name);
  resolve_merges(spec, index_tokens(spec, name), name);
}

TokenIds index_tokens(const TokenizerSpec& spec, std::string_view name) {
  TokenIds ids;
  ids.reserve(spec.tokens.size());
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    if (spec.token_types[i] == TokenType::kUnused) continue;
    const auto id = static_cast<TokenId>(i);
    const auto [other, is_new] = ids.emplace(spec.tokens[i], id);
    if (!is_new) {
      fail_data("{}: tokens {} and {} are both '{}'", name, index(other->second), i,
                spec.tokens[i]);
    }
  }
  return ids;
}

std::string bytes_of_token(const TokenizerSpec& spec, TokenId id) {
  const auto i = static_cast<std::size_t>(index(id));
  if (spec.token_types[i] != TokenType::kNormal) return spec.tokens[i];
  return from_byte_alphabet(spec.tokens[i]).value_or(spec.tokens[i]);
}

bool is_mergeable(const TokenizerSpec& spec, TokenId id) {
  const auto i = static_cast<std::size_t>(index(id));
  switch (spec.token_types[i]) {
    case TokenType::kNormal:
      return true;
    case TokenType::kControl:
    case TokenType::kUnused:
      return false;
    default:
      return from_byte_alphabet(spec.tokens[i]) == spec.tokens[i];
  }
}

std::vector<Merge> resolve_merges(const TokenizerSpec& spec, const TokenIds& ids,
                                  std::string_view name) {
  std::vector<Merge> resolved;
  resolved.reserve(spec.merges.size());
  for (std::size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const std::string& left = spec.merges[rank].first;
    const std::string& right = spec.merges[rank].second;
    const auto id_of = [&](const std::string& text) {
      const auto found = ids.find(text);
      if (found != ids.end()) return found->second;
      fail_data("{}: merge {} ('{}' + '{}') needs token '{}', which the vocabulary lacks", name,
                rank, left, right, text);
    };
    const Merge merge{id_of(left), id_of(right), id_of(left + right)};
    if (is_mergeable(spec, merge.left) && is_mergeable(spec, merge.right) &&
        is_mergeable(spec, merge.result)) {
      resolved.push_back(merge);
    }
  }
  return resolved;
}

}  // namespace winnow::text

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What a tokenizer is made of, independent of the file it came from. Readers (tokenizer.json, GGUF)
// make one, writers store one, Tokenizer runs one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/units.h"

namespace winnow::text {

/// What a token is for. The numbers are those of GGUF (tokenizer.ggml.token_type).
enum class TokenType : std::uint8_t {
  kNormal = 1,   ///< made by merging byte pairs; its text is in the byte-level alphabet
  kUnknown,      ///< stands for what the vocabulary lacks; plain text, never matched
  kControl,      ///< steers the model; plain text, matched only where special tokens are parsed
  kUserDefined,  ///< plain text, matched wherever it occurs
  kUnused,       ///< a row of the embedding that no token has; never matched
  kByte,         ///< plain text, never matched; not used by byte-level models
};

/// Whether tokens of this type are matched before the text is split.
inline bool is_added(TokenType type) {
  return type == TokenType::kControl || type == TokenType::kUserDefined;
}

/// All of a tokenizer. `check_spec` says what makes one consistent.
struct TokenizerSpec {
  std::string model;                   ///< "gpt2": byte-level BPE, by its GGUF name
  std::string pre_tokenizer;           ///< how words are cut, by its GGUF name; see pre_tokenizer.h
  std::vector<std::string> tokens;     ///< [vocab_size], UTF-8
  std::vector<TokenType> token_types;  ///< [vocab_size]
  std::vector<std::pair<std::string, std::string>> merges;  ///< the most urgent first
  std::optional<TokenId> bos, eos, pad, unknown, eot;
  bool add_bos = false;  ///< the model expects `bos` in front of a text; `encode` does not add it
  bool add_eos = false;
  std::string chat_template;  ///< Jinja; empty: none
  /// Text is brought to Unicode form C first. Then decode(encode(s)) is that form of s, not s.
  bool normalize_nfc = false;
  /// A word that is itself a token becomes that token without merging (Llama 3).
  bool ignore_merges = false;
  /// Control and user-defined tokens that are looked for after all others have been found, in
  /// normalised text (`"normalized": true` in tokenizer.json); ascending.
  std::vector<TokenId> normalized_added_tokens;

  friend bool operator==(const TokenizerSpec&, const TokenizerSpec&) = default;
};

/// Longest text of a control or user-defined token, in bytes: bounds the time to look for them.
inline constexpr std::size_t kLongestAddedToken = 1024;

/// Ids by token text, unused tokens left out. The keys point into the spec.
using TokenIds = std::unordered_map<std::string_view, TokenId>;

/// Two neighbours and what they become; ids of the vocabulary.
struct Merge {
  TokenId left, right, result;
};

/// Throws Error{kBadData}, message after "`name`: ", unless: the model is "gpt2" and its
/// pre-tokenizer known; tokens and types are equally many, at least 1; texts are valid UTF-8 and,
/// unused ones apart, distinct; ids are in range; no added token is longer than
/// kLongestAddedToken; every merge names tokens and makes one.
void check_spec(const TokenizerSpec& spec, std::string_view name);

/// Throws as check_spec when two tokens (unused ones apart) have the same text.
TokenIds index_tokens(const TokenizerSpec& spec, std::string_view name);

/// The bytes a token stands for. A normal token with a character outside the byte-level alphabet
/// stands for its own text.
std::string bytes_of_token(const TokenizerSpec& spec, TokenId id);

/// Whether merging byte pairs may yield this token. Not so for control tokens: plain text never
/// becomes one, whatever the merges say. Not so for others whose text reads differently in the
/// byte-level alphabet: they would not decode to what was encoded.
bool is_mergeable(const TokenizerSpec& spec, TokenId id);

/// The merges as ids, the most urgent first; those with a token that is not mergeable left out.
/// Throws as check_spec when one names no token.
std::vector<Merge> resolve_merges(const TokenizerSpec& spec, const TokenIds& ids,
                                  std::string_view name);

}  // namespace winnow::text

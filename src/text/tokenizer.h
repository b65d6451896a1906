// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Text to token ids and back: byte-level BPE as Hugging Face tokenizers and GGUF files define it.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.h"
#include "text/added_tokens.h"
#include "text/byte_pair_encoder.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer_spec.h"

namespace winnow::text {

/// What the text of a control token becomes. Text of a user must not steer the model: parse only
/// what a chat template or a trusted caller wrote.
enum class SpecialTokens { kAsText, kParse };

/// Immutable: threads may share one.
class Tokenizer {
 public:
  /// Throws Error{kBadData} when the spec is not consistent (see check_spec).
  explicit Tokenizer(TokenizerSpec spec);

  /// Token ids of any bytes. Never adds bos or eos. User-defined tokens are found in either mode.
  /// Each byte that is not part of valid UTF-8 becomes the token of that byte. Time is
  /// O(n log n) in the text. Throws Error{kBadData} when a byte has no token (see
  /// `covers_all_bytes`) and Error{kUsage} for text that cannot be split into words.
  std::vector<TokenId> encode(std::string_view text, SpecialTokens special) const;

  /// The bytes of `ids`, possibly not valid UTF-8; control tokens as their text. Where
  /// `covers_all_bytes` and no normalisation is asked for, decode(encode(s)) == s.
  /// Throws Error{kUsage} naming an id outside the vocabulary.
  std::string decode(std::span<const TokenId> ids) const;

  /// The bytes of one token; valid as long as the tokenizer. Errors as `decode`.
  std::string_view token_bytes(TokenId id) const;

  /// Errors as `decode`.
  bool is_control(TokenId id) const;

  /// Whether the model says with this token that it is done (eos or eot).
  bool ends_generation(TokenId id) const { return id == spec_.eos || id == spec_.eot; }

  /// Whether every byte has a token of its own, so that nothing is lost.
  bool covers_all_bytes() const { return encoder_.covers_all_bytes(); }

  std::size_t vocab_size() const { return spec_.tokens.size(); }
  const TokenizerSpec& spec() const { return spec_; }

 private:
  struct Run;  // one call of `encode`
  void store_token_bytes();
  void add_added_tokens();
  std::size_t checked_index(TokenId id) const;
  std::optional<TokenId> whole_word(std::string_view word) const;
  void encode_plain(std::string_view text, Run& run) const;
  void encode_valid(std::string_view text, Run& run) const;

  TokenizerSpec spec_;
  std::string bytes_;                  // of all tokens, in order of ids
  std::vector<std::size_t> offsets_;   // [vocab_size + 1] into bytes_
  std::vector<TokenId> words_;         // mergeable tokens by their bytes; only with ignore_merges
  AddedTokenFinder first_added_;       // looked for in the text as it is
  AddedTokenFinder normalized_added_;  // looked for between those, after normalisation
  PreTokenizer pre_tokenizer_;
  BytePairEncoder encoder_;
};

}  // namespace winnow::text

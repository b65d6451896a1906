// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A tokenizer small enough to reason about, for tests: the 256 bytes, then what a test adds.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "text/byte_alphabet.h"
#include "text/tokenizer_spec.h"

namespace winnow::text {

/// Token i is byte i, i in [0, 256); pre-tokenizer qwen2; nothing merges.
inline TokenizerSpec byte_spec() {
  TokenizerSpec spec;
  spec.model = "gpt2";
  spec.pre_tokenizer = "qwen2";
  for (int byte = 0; byte < 256; ++byte) {
    spec.tokens.push_back(to_byte_alphabet(std::string(1, static_cast<char>(byte))));
  }
  spec.token_types.assign(256, TokenType::kNormal);
  return spec;
}

/// Appends a token and returns its id.
inline TokenId add_token(TokenizerSpec& spec, std::string token, TokenType type) {
  spec.tokens.push_back(std::move(token));
  spec.token_types.push_back(type);
  return static_cast<TokenId>(spec.tokens.size() - 1);
}

/// Appends the merge of two tokens and, unless it is there, the token it makes.
inline void add_merge(TokenizerSpec& spec, const std::string& left, const std::string& right) {
  spec.merges.emplace_back(left, right);
  for (const std::string& token : spec.tokens) {
    if (token == left + right) return;
  }
  add_token(spec, left + right, TokenType::kNormal);
}

}  // namespace winnow::text

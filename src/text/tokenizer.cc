// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The order of things follows Hugging Face tokenizers: added tokens in the raw text, normalisation
// of what lies between, added tokens again, words by regular expression, byte pairs.
#include "text/tokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "text/byte_alphabet.h"
#include "text/nfc.h"
#include "text/utf8.h"

namespace winnow::text {

namespace {

constexpr std::string_view kName = "tokenizer";

using ByteTokens = std::array<std::optional<TokenId>, 256>;

ByteTokens find_byte_tokens(const TokenizerSpec& spec, const TokenIds& ids) {
  ByteTokens byte_tokens;
  for (std::size_t byte = 0; byte < byte_tokens.size(); ++byte) {
    const char value = static_cast<char>(byte);
    const auto found = ids.find(to_byte_alphabet({&value, 1}));
    if (found != ids.end() && is_mergeable(spec, found->second)) byte_tokens[byte] = found->second;
  }
  return byte_tokens;
}

BytePairEncoder make_encoder(const TokenizerSpec& spec) {
  const TokenIds ids = index_tokens(spec, kName);
  return BytePairEncoder(find_byte_tokens(spec, ids), spec.unknown,
                         resolve_merges(spec, ids, kName), spec.tokens.size());
}

TokenizerSpec checked(TokenizerSpec spec) {
  check_spec(spec, kName);
  return spec;
}

}  // namespace

struct Tokenizer::Run {
  SpecialTokens special;
  std::vector<TokenId> ids;
  std::vector<std::string_view> words;
  BytePairEncoder::Workspace workspace;

  /// Cuts `text` at the added tokens: `on_text` gets what lies between them.
  template <typename OnText>
  void cut(std::string_view text, const AddedTokenFinder& added, const Tokenizer& tokenizer,
           const OnText& on_text) {
    std::size_t done = 0;
    std::size_t cursor = 0;
    while (const auto match = added.find(text, cursor)) {
      cursor = match->end;
      // As text, a control token still hides what user-defined tokens lie in it.
      if (special == SpecialTokens::kAsText && tokenizer.is_control(match->id)) continue;
      on_text(text.substr(done, match->begin - done));
      ids.push_back(match->id);
      done = match->end;
    }
    on_text(text.substr(done));
  }
};

Tokenizer::Tokenizer(TokenizerSpec spec)
    : spec_(checked(std::move(spec))),
      pre_tokenizer_(*find_pre_tokenizer(spec_.pre_tokenizer)),
      encoder_(make_encoder(spec_)) {
  store_token_bytes();
  add_added_tokens();
}

void Tokenizer::store_token_bytes() {
  offsets_.reserve(vocab_size() + 1);
  offsets_.push_back(0);
  for (std::size_t i = 0; i < vocab_size(); ++i) {
    bytes_ += bytes_of_token(spec_, static_cast<TokenId>(i));
    offsets_.push_back(bytes_.size());
  }
  if (!spec_.ignore_merges) return;
  for (std::size_t i = 0; i < vocab_size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    if (is_mergeable(spec_, id) && from_byte_alphabet(spec_.tokens[i])) words_.push_back(id);
  }
  std::sort(words_.begin(), words_.end(),
            [&](TokenId a, TokenId b) { return token_bytes(a) < token_bytes(b); });
}

void Tokenizer::add_added_tokens() {
  const std::vector<TokenId>& normalized = spec_.normalized_added_tokens;
  for (std::size_t i = 0; i < vocab_size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const TokenType type = spec_.token_types[i];
    if (type != TokenType::kControl && type != TokenType::kUserDefined) continue;
    if (std::binary_search(normalized.begin(), normalized.end(), id)) {
      normalized_added_.add(spec_.normalize_nfc ? normalize_nfc(spec_.tokens[i]) : spec_.tokens[i],
                            id);
    } else {
      first_added_.add(spec_.tokens[i], id);
    }
  }
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, SpecialTokens special) const {
  Run run{special, {}, {}, {}};
  run.cut(text, first_added_, *this, [&](std::string_view raw) {
    if (raw.empty()) return;
    const std::string normal = spec_.normalize_nfc ? normalize_nfc(raw) : std::string();
    run.cut(spec_.normalize_nfc ? std::string_view(normal) : raw, normalized_added_, *this,
            [&](std::string_view plain) { encode_plain(plain, run); });
  });
  return std::move(run.ids);
}

void Tokenizer::encode_plain(std::string_view text, Run& run) const {
  while (!text.empty()) {
    const std::size_t valid = valid_prefix(text);
    if (valid > 0) encode_valid(text.substr(0, valid), run);
    text.remove_prefix(valid);
    if (text.empty()) break;
    encoder_.encode(text.substr(0, 1), run.ids, run.workspace);  // a byte outside UTF-8
    text.remove_prefix(1);
  }
}

void Tokenizer::encode_valid(std::string_view text, Run& run) const {
  pre_tokenizer_.split(text, run.words);
  for (const std::string_view word : run.words) {
    if (const auto id = whole_word(word)) {
      run.ids.push_back(*id);
    } else {
      encoder_.encode(word, run.ids, run.workspace);
    }
  }
}

std::optional<TokenId> Tokenizer::whole_word(std::string_view word) const {
  const auto found =
      std::lower_bound(words_.begin(), words_.end(), word,
                       [&](TokenId id, std::string_view bytes) { return token_bytes(id) < bytes; });
  if (found == words_.end() || token_bytes(*found) != word) return std::nullopt;
  return *found;
}

std::size_t Tokenizer::checked_index(TokenId id) const {
  if (index(id) < 0 || static_cast<std::size_t>(index(id)) >= vocab_size()) {
    fail(ErrorCode::kUsage, "token id {} is outside the vocabulary of {} tokens", index(id),
         vocab_size());
  }
  return static_cast<std::size_t>(index(id));
}

std::string Tokenizer::decode(std::span<const TokenId> ids) const {
  std::string bytes;
  for (const TokenId id : ids) bytes += token_bytes(id);
  return bytes;
}

std::string_view Tokenizer::token_bytes(TokenId id) const {
  const std::size_t i = checked_index(id);
  return std::string_view(bytes_).substr(offsets_[i], offsets_[i + 1] - offsets_[i]);
}

bool Tokenizer::is_control(TokenId id) const {
  return spec_.token_types[checked_index(id)] == TokenType::kControl;
}

}  // namespace winnow::text

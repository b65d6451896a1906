// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "model/tokenizer_metadata.h"

#include <array>
#include <string_view>

#include "base/error.h"

namespace winnow::model {
namespace {

using formats::Metadata;

constexpr std::string_view kPrefix = "tokenizer.ggml.";

std::string key(std::string_view suffix) { return fmt::format("{}{}", kPrefix, suffix); }

struct SpecialId {
  std::string_view suffix;
  std::optional<TokenId> text::TokenizerSpec::*member;
};
constexpr std::array kSpecialIds = {
    SpecialId{"bos_token_id", &text::TokenizerSpec::bos},
    SpecialId{"eos_token_id", &text::TokenizerSpec::eos},
    SpecialId{"padding_token_id", &text::TokenizerSpec::pad},
    SpecialId{"unknown_token_id", &text::TokenizerSpec::unknown},
    SpecialId{"eot_token_id", &text::TokenizerSpec::eot},
};

/// GGUF stores a merge as "left right"; neither part contains a blank, since the byte alphabet
/// writes it as another letter.
std::pair<std::string, std::string> split_merge(const std::string& merge,
                                                const Metadata& metadata) {
  const auto blank = merge.find(' ', 1);
  if (blank == std::string::npos || blank + 1 == merge.size()) {
    fail_data("{}: key '{}' holds '{}'; expected two pieces with a blank between",
              metadata.source(), key("merges"), merge);
  }
  return {merge.substr(0, blank), merge.substr(blank + 1)};
}

std::vector<text::TokenType> read_token_types(const Metadata& metadata, std::size_t count) {
  std::vector<text::TokenType> types(count, text::TokenType::kNormal);
  if (!metadata.contains(key("token_type"))) return types;
  const auto numbers = metadata.integers(key("token_type"));
  if (numbers.size() != count) {
    fail_data("{}: key '{}' has {} entries, '{}' has {}", metadata.source(), key("token_type"),
              numbers.size(), key("tokens"), count);
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (numbers[i] < 1 || numbers[i] > 6) {
      fail_data("{}: key '{}' holds {} at {}; expected 1 to 6", metadata.source(),
                key("token_type"), numbers[i], i);
    }
    types[i] = static_cast<text::TokenType>(numbers[i]);
  }
  return types;
}

// What tokenizer.json can say and GGUF's usual keys cannot: in keys of our own, so that nothing is
// lost on the way through GGUF. Other programs pass over them.
constexpr std::string_view kNormalizeNfc = "winnow.tokenizer.normalize_nfc";
constexpr std::string_view kIgnoreMerges = "winnow.tokenizer.ignore_merges";
constexpr std::string_view kNormalizedAddedTokens = "winnow.tokenizer.normalized_added_tokens";

void read_own_keys(const Metadata& metadata, text::TokenizerSpec& spec) {
  const auto flag = [&](std::string_view name) {
    return metadata.contains(name) && metadata.boolean(name);
  };
  spec.normalize_nfc = flag(kNormalizeNfc);
  spec.ignore_merges = flag(kIgnoreMerges);
  if (!metadata.contains(kNormalizedAddedTokens)) return;
  for (const std::int64_t id : metadata.integers(kNormalizedAddedTokens)) {
    if (id < 0 || static_cast<std::uint64_t>(id) >= spec.tokens.size()) {
      fail_data("{}: key '{}' holds {}, beyond the {} tokens", metadata.source(),
                kNormalizedAddedTokens, id, spec.tokens.size());
    }
    spec.normalized_added_tokens.push_back(TokenId{static_cast<std::int32_t>(id)});
  }
}

void write_own_keys(const text::TokenizerSpec& spec, Metadata& metadata) {
  if (spec.normalize_nfc) metadata.set(std::string(kNormalizeNfc), true);
  if (spec.ignore_merges) metadata.set(std::string(kIgnoreMerges), true);
  if (spec.normalized_added_tokens.empty()) return;
  std::vector<std::int32_t> ids;
  for (const TokenId id : spec.normalized_added_tokens) ids.push_back(index(id));
  metadata.set(std::string(kNormalizedAddedTokens), formats::Array(std::move(ids)));
}

}  // namespace

text::TokenizerSpec read_tokenizer_metadata(const Metadata& metadata) {
  text::TokenizerSpec spec;
  spec.model = metadata.string(key("model"));
  if (spec.model != "gpt2") {
    fail_data("{}: key '{}' is '{}'; only 'gpt2' (byte-level BPE) is supported", metadata.source(),
              key("model"), spec.model);
  }
  spec.pre_tokenizer = metadata.string(key("pre"));
  spec.tokens = metadata.strings(key("tokens"));
  spec.token_types = read_token_types(metadata, spec.tokens.size());
  for (const std::string& merge : metadata.strings(key("merges"))) {
    spec.merges.push_back(split_merge(merge, metadata));
  }
  for (const SpecialId& special : kSpecialIds) {
    if (!metadata.contains(key(special.suffix))) continue;
    const std::uint64_t id = metadata.integer(key(special.suffix));
    if (id >= spec.tokens.size()) {
      fail_data("{}: key '{}' is {}, beyond the {} tokens", metadata.source(), key(special.suffix),
                id, spec.tokens.size());
    }
    spec.*special.member = TokenId{static_cast<std::int32_t>(id)};
  }
  const auto flag = [&](std::string_view suffix) {
    return metadata.contains(key(suffix)) && metadata.boolean(key(suffix));
  };
  spec.add_bos = flag("add_bos_token");
  spec.add_eos = flag("add_eos_token");
  if (metadata.contains("tokenizer.chat_template")) {
    spec.chat_template = metadata.string("tokenizer.chat_template");
  }
  read_own_keys(metadata, spec);
  return spec;
}

void write_tokenizer_metadata(const text::TokenizerSpec& spec, Metadata& metadata) {
  metadata.set(key("model"), spec.model);
  metadata.set(key("pre"), spec.pre_tokenizer);
  metadata.set(key("tokens"), formats::Array(spec.tokens));
  std::vector<std::int32_t> types;
  for (const text::TokenType type : spec.token_types) {
    types.push_back(static_cast<std::int32_t>(type));
  }
  metadata.set(key("token_type"), formats::Array(std::move(types)));
  std::vector<std::string> merges;
  for (const auto& [left, right] : spec.merges) merges.push_back(left + ' ' + right);
  metadata.set(key("merges"), formats::Array(std::move(merges)));
  for (const SpecialId& special : kSpecialIds) {
    if (const auto id = spec.*special.member) {
      metadata.set(key(special.suffix), static_cast<std::uint32_t>(index(*id)));
    }
  }
  metadata.set(key("add_bos_token"), spec.add_bos);
  metadata.set(key("add_eos_token"), spec.add_eos);
  if (!spec.chat_template.empty()) metadata.set("tokenizer.chat_template", spec.chat_template);
  write_own_keys(spec, metadata);
}

}  // namespace winnow::model

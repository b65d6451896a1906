// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Writes a spec in the form that the library `tokenizers` (0.14 and later) and transformers load.
#include <string>
#include <utility>

#include "base/json.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer_json.h"

#include <algorithm>

namespace winnow::text {

namespace {

/// Adds a member without the search for an equal key, which would be O(n) each time.
void append(Json& object, std::string key, Json value) {
  auto& members = object.get_ref<Json::object_t&>();
  members.Json::object_t::Container::emplace_back(std::move(key), std::move(value));
}

Json byte_level_step() {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", false},
          {"use_regex", false}};
}

Json pre_tokenizer_json(const TokenizerSpec& spec) {
  Json steps = Json::array();
  for (const std::string_view pattern : find_pre_tokenizer(spec.pre_tokenizer)->patterns) {
    steps.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", pattern}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  }
  steps.push_back(byte_level_step());
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

Json added_tokens_json(const TokenizerSpec& spec) {
  Json added = Json::array();
  const auto& normalized = spec.normalized_added_tokens;
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    if (!is_added(spec.token_types[i])) continue;
    const auto id = static_cast<TokenId>(i);
    added.push_back({{"id", i},
                     {"content", spec.tokens[i]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", std::binary_search(normalized.begin(), normalized.end(), id)},
                     {"special", spec.token_types[i] == TokenType::kControl}});
  }
  return added;
}

/// Whether the added tokens follow the others without a gap. `tokenizers` numbers them so, whatever
/// ids the file gives them, unless they are in the vocabulary too.
bool added_tokens_come_last(const TokenizerSpec& spec) {
  const auto& types = spec.token_types;
  const auto not_used = [](TokenType type) { return type == TokenType::kUnused; };
  const auto first_added = std::find_if(types.begin(), types.end(), is_added);
  const auto end = std::find_if(first_added, types.end(), not_used);
  return std::none_of(types.begin(), first_added, not_used) &&
         std::all_of(first_added, end, is_added) && std::all_of(end, types.end(), not_used);
}

Json vocab_json(const TokenizerSpec& spec) {
  Json vocab = Json::object();
  const bool without_added = added_tokens_come_last(spec);
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    const TokenType type = spec.token_types[i];
    if (type == TokenType::kUnused || (without_added && is_added(type))) continue;
    append(vocab, spec.tokens[i], i);
  }
  return vocab;
}

/// "a b", which every version reads; pairs when a token has a blank in it.
Json merges_json(const TokenizerSpec& spec) {
  const auto has_blank = [](const auto& merge) {
    return (merge.first + merge.second).find(' ') != std::string::npos || merge.first.empty() ||
           merge.second.empty();
  };
  const bool as_pairs = std::any_of(spec.merges.begin(), spec.merges.end(), has_blank);
  Json merges = Json::array();
  for (const auto& [left, right] : spec.merges) {
    merges.push_back(as_pairs ? Json::array({left, right}) : Json(left + " " + right));
  }
  return merges;
}

Json model_json(const TokenizerSpec& spec) {
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", ""},
          {"end_of_word_suffix", ""},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", spec.ignore_merges},
          {"vocab", vocab_json(spec)},
          {"merges", merges_json(spec)}};
}

Json special_json(const TokenizerSpec& spec, std::optional<TokenId> id) {
  return id ? Json(spec.tokens[static_cast<std::size_t>(index(*id))]) : Json(nullptr);
}

}  // namespace

std::string write_tokenizer_json(const TokenizerSpec& spec) {
  check_spec(spec, "tokenizer");
  const Json json = {{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", added_tokens_json(spec)},
                     {"normalizer", spec.normalize_nfc ? Json{{"type", "NFC"}} : Json(nullptr)},
                     {"pre_tokenizer", pre_tokenizer_json(spec)},
                     {"post_processor", byte_level_step()},
                     {"decoder", byte_level_step()},
                     {"model", model_json(spec)}};
  return dump_json(json, /*pretty=*/true) + "\n";
}

std::string write_tokenizer_config_json(const TokenizerSpec& spec) {
  check_spec(spec, "tokenizer");
  Json json = {{"tokenizer_class", "PreTrainedTokenizerFast"},
               {"add_prefix_space", false},
               {"clean_up_tokenization_spaces", false},
               {"add_bos_token", spec.add_bos},
               {"add_eos_token", spec.add_eos},
               {"bos_token", special_json(spec, spec.bos)},
               {"eos_token", special_json(spec, spec.eos)},
               {"pad_token", special_json(spec, spec.pad)},
               {"unk_token", special_json(spec, spec.unknown)}};
  if (spec.eot) json["eot_token"] = special_json(spec, spec.eot);
  if (!spec.chat_template.empty()) json["chat_template"] = spec.chat_template;
  return dump_json(json, /*pretty=*/true) + "\n";
}

}  // namespace winnow::text

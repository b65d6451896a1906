// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// tokenizer.json as the library `tokenizers` defines it. What would change the tokens and is not
// implemented is refused by name rather than ignored.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "text/json_field.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer_json.h"

namespace winnow::text {

namespace {

bool is_true(const JsonField& object, std::string_view key, bool when_missing = false) {
  const auto field = object.find(key);
  return field ? field->boolean() : when_missing;
}

void refuse_if_true(const JsonField& object, std::string_view key) {
  if (is_true(object, key)) object.at(key).fail_expected("false (true is not supported)");
}

void refuse_unless_empty(const JsonField& model, std::string_view key) {
  const auto field = model.find(key);
  if (field && !field->string().empty()) field->fail_expected("null or \"\"");
}

void check_model(const JsonField& model) {
  const auto type = model.find("type");
  if (type && type->string() != "BPE") type->fail_expected("\"BPE\"");
  const auto dropout = model.find("dropout");
  if (dropout && dropout->value() != 0.0) dropout->fail_expected("null or 0");
  refuse_unless_empty(model, "continuing_subword_prefix");
  refuse_unless_empty(model, "end_of_word_suffix");
  refuse_if_true(model, "byte_fallback");
}

void place_token(const JsonField& where, std::size_t id, const std::string& token, TokenType type,
                 TokenizerSpec& spec) {
  if (spec.token_types[id] != TokenType::kUnused) {
    fail_data("{}: key '{}': id {} belongs to both '{}' and '{}'", where.file(), where.path(), id,
              spec.tokens[id], token);
  }
  spec.tokens[id] = token;
  spec.token_types[id] = type;
}

void read_vocab(const JsonField& vocab, TokenizerSpec& spec) {
  for (const auto& [token, id] : vocab.object().items()) {
    const JsonField field(id, vocab.path() + "." + token, vocab.file());
    place_token(vocab, field.integer_below(spec.tokens.size()), token, TokenType::kNormal, spec);
  }
}

std::pair<std::string, std::string> read_merge(const JsonField& merge) {
  if (merge.value().is_array()) {
    if (merge.array().size() != 2) merge.fail_expected("two tokens");
    return {merge.element(0).string(), merge.element(1).string()};
  }
  const std::string& text = merge.string();
  const std::size_t blank = text.find(' ');
  if (blank == std::string::npos || blank == 0 || blank + 1 == text.size() ||
      blank != text.rfind(' ')) {
    merge.fail_expected("two tokens with a blank between them");
  }
  return {text.substr(0, blank), text.substr(blank + 1)};
}

void read_merges(const JsonField& merges, TokenizerSpec& spec) {
  const std::size_t count = merges.array().size();
  spec.merges.reserve(count);
  for (std::size_t i = 0; i < count; ++i) spec.merges.push_back(read_merge(merges.element(i)));
}

void read_added_token(const JsonField& token, TokenizerSpec& spec) {
  const std::size_t id = token.at("id").integer_below(spec.tokens.size());
  const std::string& content = token.at("content").string();
  for (const char* flag : {"single_word", "lstrip", "rstrip"}) refuse_if_true(token, flag);
  const bool special = is_true(token, "special");
  if (spec.token_types[id] == TokenType::kNormal && spec.tokens[id] == content) {
    spec.token_types[id] = TokenType::kUnused;  // also in the vocabulary: the flags here decide
  }
  place_token(token, id, content, special ? TokenType::kControl : TokenType::kUserDefined, spec);
  if (is_true(token, "normalized", !special)) {
    spec.normalized_added_tokens.push_back(static_cast<TokenId>(id));
  }
}

void read_added_tokens(const JsonField& root, TokenizerSpec& spec) {
  const auto added = root.find("added_tokens");
  const std::size_t count = added ? added->array().size() : 0;
  for (std::size_t i = 0; i < count; ++i) read_added_token(added->element(i), spec);
  std::sort(spec.normalized_added_tokens.begin(), spec.normalized_added_tokens.end());
}

void name_unused(TokenizerSpec& spec) {
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    if (spec.token_types[i] == TokenType::kUnused) spec.tokens[i] = fmt::format("[PAD{}]", i);
  }
}

void read_normalizer(const JsonField& normalizer, TokenizerSpec& spec) {
  const JsonField type = normalizer.at("type");
  if (type.string() == "NFC") {
    spec.normalize_nfc = true;
  } else if (type.string() == "Sequence") {
    const JsonField steps = normalizer.at("normalizers");
    for (std::size_t i = 0; i < steps.array().size(); ++i) read_normalizer(steps.element(i), spec);
  } else {
    type.fail_expected("\"NFC\", or no normalizer");
  }
}

/// The patterns that pre-tokenization applies one after the other.
struct SplitSteps {
  std::vector<std::string> patterns;
  bool ends_in_bytes = false;  // the byte-level alphabet comes last
};

void read_split(const JsonField& split, SplitSteps& steps) {
  const JsonField behavior = split.at("behavior");
  if (behavior.string() != "Isolated") behavior.fail_expected("\"Isolated\"");
  refuse_if_true(split, "invert");
  steps.patterns.push_back(split.at("pattern").at("Regex").string());
}

void read_byte_level(const JsonField& byte_level, SplitSteps& steps) {
  if (is_true(byte_level, "add_prefix_space", true)) {
    fail_data("{}: key '{}.add_prefix_space' is true, which is not supported", byte_level.file(),
              byte_level.path());
  }
  if (is_true(byte_level, "use_regex", true)) steps.patterns.emplace_back(gpt2_pattern());
  steps.ends_in_bytes = true;
}

void read_step(const JsonField& step, SplitSteps& steps) {
  const JsonField type = step.at("type");
  if (steps.ends_in_bytes) type.fail_expected("nothing after ByteLevel");
  if (type.string() == "Sequence") {
    const JsonField parts = step.at("pretokenizers");
    for (std::size_t i = 0; i < parts.array().size(); ++i) read_step(parts.element(i), steps);
  } else if (type.string() == "Split") {
    read_split(step, steps);
  } else if (type.string() == "Digits") {
    steps.patterns.emplace_back(is_true(step, "individual_digits") ? R"(\p{N})" : R"(\p{N}+)");
  } else if (type.string() == "ByteLevel") {
    read_byte_level(step, steps);
  } else {
    type.fail_expected("Sequence, Split, Digits or ByteLevel");
  }
}

void read_pre_tokenizer(const JsonField& pre_tokenizer, TokenizerSpec& spec) {
  SplitSteps steps;
  read_step(pre_tokenizer, steps);
  if (!steps.ends_in_bytes) {
    fail_data("{}: key 'pre_tokenizer' has no step ByteLevel; only byte-level BPE is supported",
              pre_tokenizer.file());
  }
  const PreTokenizerEntry* entry = find_pre_tokenizer(steps.patterns);
  if (entry == nullptr) {
    fail_data("{}: key 'pre_tokenizer' splits by patterns that are not known: {}; known are: {}",
              pre_tokenizer.file(), fmt::join(steps.patterns, " then "), pre_tokenizer_names());
  }
  spec.pre_tokenizer = entry->name;
}

/// Text of the token in "bos_token": "<s>" or "bos_token": {"content": "<s>", ...}.
std::optional<TokenId> read_special(const JsonField& object, std::string_view key,
                                    const TokenIds& ids) {
  auto field = object.find(key);
  if (field && field->value().is_object()) field = field->at("content");
  if (!field) return std::nullopt;
  const auto found = ids.find(field->string());
  if (found == ids.end()) field->fail_expected("a token of the vocabulary");
  return found->second;
}

std::string read_chat_template(const JsonField& config) {
  const auto field = config.find("chat_template");
  if (!field) return {};
  if (field->value().is_string()) return field->string();
  for (std::size_t i = 0; i < field->array().size(); ++i) {  // several, each with a name
    const JsonField named = field->element(i);
    if (named.at("name").string() == "default") return named.at("template").string();
  }
  return {};
}

/// Whether the template of the post-processor puts `token` first (or last) in a single text.
bool template_adds(const JsonField& root, bool first, const TokenizerSpec& spec,
                   std::optional<TokenId> token) {
  auto processor = root.find("post_processor");
  if (!processor || !token) return false;
  if (const auto parts = processor->find("processors")) {
    for (std::size_t i = 0; i < parts->array().size(); ++i) {
      if (parts->element(i).find("single")) processor = parts->element(i);
    }
  }
  const auto single = processor->find("single");
  if (!single || single->array().empty()) return false;
  const auto special = single->element(first ? 0 : single->array().size() - 1).find("SpecialToken");
  return special &&
         special->at("id").string() == spec.tokens[static_cast<std::size_t>(index(*token))];
}

void read_config(const JsonField& config, const JsonField& root, const TokenIds& ids,
                 TokenizerSpec& spec) {
  spec.bos = read_special(config, "bos_token", ids);
  spec.eos = read_special(config, "eos_token", ids);
  spec.pad = read_special(config, "pad_token", ids);
  spec.eot = read_special(config, "eot_token", ids);
  spec.unknown = read_special(config, "unk_token", ids);
  if (!spec.unknown) spec.unknown = read_special(root.at("model"), "unk_token", ids);
  // A config may ask for a bos token it does not have; there is nothing to add then.
  const bool template_bos = template_adds(root, true, spec, spec.bos);
  const bool template_eos = template_adds(root, false, spec, spec.eos);
  spec.add_bos = spec.bos && is_true(config, "add_bos_token", template_bos);
  spec.add_eos = spec.eos && is_true(config, "add_eos_token", template_eos);
  spec.chat_template = read_chat_template(config);
}

}  // namespace

TokenizerSpec read_tokenizer_json(std::string_view tokenizer_json,
                                  std::string_view tokenizer_config_json, std::size_t vocab_size,
                                  std::string_view name) {
  const SortedJson json = parse_sorted_json(tokenizer_json, name);
  const JsonField root(json, "", name);
  if (vocab_size == 0) fail_data("{}: the vocabulary size is 0", name);
  TokenizerSpec spec;
  spec.model = "gpt2";
  spec.tokens.resize(vocab_size);
  spec.token_types.resize(vocab_size, TokenType::kUnused);

  const JsonField model = root.at("model");
  check_model(model);
  read_vocab(model.at("vocab"), spec);
  read_merges(model.at("merges"), spec);
  spec.ignore_merges = is_true(model, "ignore_merges");
  read_added_tokens(root, spec);
  name_unused(spec);
  if (const auto normalizer = root.find("normalizer")) read_normalizer(*normalizer, spec);
  read_pre_tokenizer(root.at("pre_tokenizer"), spec);

  const std::string config_name = fmt::format("{} (tokenizer_config.json)", name);
  const SortedJson config_json = tokenizer_config_json.empty()
                                     ? SortedJson::object()
                                     : parse_sorted_json(tokenizer_config_json, config_name);
  const TokenIds ids = index_tokens(spec, name);
  read_config(JsonField(config_json, "", config_name), root, ids, spec);
  check_spec(spec, name);
  return spec;
}

}  // namespace winnow::text

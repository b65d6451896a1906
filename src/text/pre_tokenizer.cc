// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The table of pre-tokenizers. A new one is one line here; its patterns are those of the model's
// own tokenizer.json, its name the one stock GGUF files use for it.
#include "text/pre_tokenizer.h"

#include <algorithm>
#include <array>

namespace winnow::text {

namespace {

constexpr std::string_view kDigit = R"(\p{N})";
constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr std::array kGpt2Patterns{kGpt2};
constexpr std::array kQwen2Patterns{kQwen2};
constexpr std::array kLlama3Patterns{kLlama3};
constexpr std::array kSmolLmPatterns{kDigit, kGpt2};

constexpr std::array<PreTokenizerEntry, 6> kEntries{{
    {"qwen2", kQwen2Patterns},
    {"llama-bpe", kLlama3Patterns},
    {"dbrx", kLlama3Patterns},
    {"gpt-2", kGpt2Patterns},
    {"olmo", kGpt2Patterns},
    {"smollm", kSmolLmPatterns},
}};

}  // namespace

std::span<const PreTokenizerEntry> all_pre_tokenizers() { return kEntries; }

const PreTokenizerEntry* find_pre_tokenizer(std::string_view name) {
  const auto found = std::find_if(kEntries.begin(), kEntries.end(),
                                  [&](auto& entry) { return entry.name == name; });
  return found == kEntries.end() ? nullptr : &*found;
}

const PreTokenizerEntry* find_pre_tokenizer(std::span<const std::string> patterns) {
  const auto found = std::find_if(kEntries.begin(), kEntries.end(), [&](auto& entry) {
    return std::equal(entry.patterns.begin(), entry.patterns.end(), patterns.begin(),
                      patterns.end());
  });
  return found == kEntries.end() ? nullptr : &*found;
}

std::string pre_tokenizer_names() {
  std::string names;
  for (const PreTokenizerEntry& entry : kEntries) {
    if (!names.empty()) names += ' ';
    names += entry.name;
  }
  return names;
}

std::string_view gpt2_pattern() { return kGpt2; }

PreTokenizer::PreTokenizer(const PreTokenizerEntry& entry) {
  for (const std::string_view pattern : entry.patterns) splitters_.emplace_back(pattern);
}

void PreTokenizer::split(std::string_view text, std::vector<std::string_view>& pieces) const {
  pieces.assign(1, text);
  std::vector<std::string_view> finer;
  for (const RegexSplitter& splitter : splitters_) {
    finer.clear();
    for (const std::string_view piece : pieces) splitter.split(piece, finer);
    pieces.swap(finer);
  }
}

}  // namespace winnow::text

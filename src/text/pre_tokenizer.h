// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How text is cut into words before byte pairs are merged: a table from the name that GGUF stores
// (tokenizer.ggml.pre) to the patterns that tokenizer.json spells out.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/regex_splitter.h"

namespace winnow::text {

/// One way to cut. Each pattern cuts the pieces that the one before has left.
struct PreTokenizerEntry {
  std::string_view name;                       ///< in GGUF
  std::span<const std::string_view> patterns;  ///< as in tokenizer.json, character for character
};

/// Every entry; of several names for the same patterns the first is the one that is written.
std::span<const PreTokenizerEntry> all_pre_tokenizers();

/// The entry with this GGUF name, or null.
const PreTokenizerEntry* find_pre_tokenizer(std::string_view name);

/// The first entry with exactly these patterns, or null.
const PreTokenizerEntry* find_pre_tokenizer(std::span<const std::string> patterns);

/// Names of all entries, separated by blanks, for messages.
std::string pre_tokenizer_names();

/// The pattern of GPT-2, which the step `ByteLevel` of tokenizer.json has built in.
std::string_view gpt2_pattern();

/// An entry made ready to cut. Immutable: threads may share it.
class PreTokenizer {
 public:
  explicit PreTokenizer(const PreTokenizerEntry& entry);

  /// Replaces `pieces` by the words of `text` (valid UTF-8) in order; together they are `text`,
  /// and point into it. Errors as RegexSplitter::split.
  void split(std::string_view text, std::vector<std::string_view>& pieces) const;

 private:
  std::vector<RegexSplitter> splitters_;
};

}  // namespace winnow::text

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Evaluation and calibration text: files become documents, documents become windows of tokens.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/units.h"
#include "text/tokenizer.h"

namespace winnow::metrics {

/// A text that is encoded whole. Its domain is the file's name without the suffix.
struct Document {
  std::string domain;
  std::string source;  ///< file, and line for JSONL: for messages
  std::string text;
};

/// Reads `paths`: text files, JSONL files (one object with a string `text` per line), or folders of
/// them (not recursive, in order of file names, hidden files left out).
/// Throws Error{kBadData} that names file and line, also when the files hold no text at all;
/// Error{kUsage} when `paths` is empty.
std::vector<Document> read_documents(std::span<const std::string> paths);

/// The same for text that a model is calibrated on: Error{kBadData} also for a zero byte, and for
/// what is no UTF-8. A stray byte in a hundred is let through: the tokenizer has tokens for it.
std::vector<Document> read_calibration(std::span<const std::string> paths);

/// A stretch of tokens that is run from an empty cache.
struct Window {
  std::size_t domain = 0;  ///< index into WindowSet::domains
  /// What the model is given: the start token, then text tokens.
  std::vector<TokenId> tokens;
  /// Tokens from this index on are predicted and scored.
  std::size_t first_scored = 1;

  std::size_t scored() const { return tokens.size() - first_scored; }
};

struct WindowSet {
  /// In order of first appearance; those without a token to score are left out. With fewer
  /// `max_tokens` than domains the last ones have no window.
  std::vector<std::string> domains;
  std::vector<Window> windows;  ///< in document order
  std::uint64_t scored_tokens() const;
};

struct WindowOptions {
  std::size_t context = 512;     ///< positions of a window, start token included; >= 2
  std::uint64_t max_tokens = 0;  ///< scored tokens to keep in all, shared equally by the domains as
                                 ///< far as they reach; 0: all
  /// How many times the tokens of another a domain gets of `max_tokens`; 1 for those not named, 0
  /// leaves a domain out whatever `max_tokens` is.
  std::map<std::string, double> weights = {};
};

/// Documents are encoded whole, special tokens not parsed, and cut into consecutive stretches of
/// context - 1 tokens; the last may be shorter. Each is preceded by the model's BOS, else by
/// `<|endoftext|>`; a model with neither gets stretches of `context` tokens whose first is not
/// scored. So every text token is scored exactly once where there is a start token.
/// Throws Error{kUsage} for a context below 2 and for weights of domains that there are not,
/// Error{kBadData} when there is no token to score.
WindowSet make_windows(const text::Tokenizer& tokenizer, std::span<const Document> documents,
                       const WindowOptions& options);

}  // namespace winnow::metrics

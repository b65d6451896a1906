// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The generation loop: prompt in chunks, then token by token until something says stop.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "base/units.h"
#include "engine/engine.h"
#include "engine/sampler.h"
#include "text/tokenizer.h"

namespace winnow::engine {

struct GenerateOptions {
  std::size_t max_tokens = 128;     ///< tokens to make at most
  std::size_t prefill_chunk = 512;  ///< prompt tokens run together, which bounds the memory; >= 1
  bool ignore_end = false;          ///< go on after a token with which the model ends its text
  /// Not empty each; the text ends before the first to appear whole.
  std::vector<std::string> stop{};
  SamplerOptions sampler{};
};

enum class StopReason {
  kEndToken,     ///< the model is done
  kStopString,   ///< one of `stop` was made
  kLimit,        ///< max_tokens, or the cache is full
  kInterrupted,  ///< Log::stop_requested
};
/// "end_token", "stop_string", "limit", "interrupted": for people and JSON.
std::string_view to_string(StopReason reason);

struct GenerateResult {
  std::vector<TokenId> tokens;  ///< as sampled, an end token included
  StopReason reason = StopReason::kLimit;
  double prefill_seconds = 0;      ///< from the call to the first logits
  double first_token_seconds = 0;  ///< from the call to the first token; 0 when there was none
  double decode_seconds = 0;       ///< from the first token to the last
};

/// Logits [vocab_size] of the token after these, which continue what was given before.
using NextLogits = std::function<std::span<const float>(std::span<const TokenId> tokens)>;
/// Receives text as it becomes certain: whole UTF-8 characters (but for bytes that can never become
/// one), nothing that may still turn out to begin a stop string. Never empty.
using TextSink = std::function<void(std::string_view text)>;

/// Continues `prompt` (at least one token). `capacity`: positions the model can hold; the last
/// token made needs none, so at most capacity - prompt.size() + 1 are made.
/// Throws Error{kUsage} for sampler options out of range, what `next` and `sink` throw, and
/// Error{kInternal} for an empty prompt or one beyond the capacity.
GenerateResult generate(const NextLogits& next, const text::Tokenizer& tokenizer,
                        std::span<const TokenId> prompt, std::size_t capacity,
                        const GenerateOptions& options, const TextSink& sink, const Log& log);

/// The same with an engine and an empty cache.
GenerateResult generate(Engine& engine, KvCache& cache, const text::Tokenizer& tokenizer,
                        std::span<const TokenId> prompt, const GenerateOptions& options,
                        const TextSink& sink, const Log& log);

/// Finds stop strings in a text that arrives in pieces.
class StopFinder {
 public:
  /// No string may be empty.
  explicit StopFinder(std::vector<std::string> stops);
  /// Takes the next piece; returns the text that is now certain to lie before any stop string.
  std::string push(std::string_view piece);
  /// Whether a stop string was found; further pieces are then ignored.
  bool found() const { return found_; }
  /// The text held back, when no more will come. Empty after a find.
  std::string finish();

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool found_ = false;
};

}  // namespace winnow::engine

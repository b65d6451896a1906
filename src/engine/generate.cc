// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/generate.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/error.h"
#include "text/stream_decoder.h"

namespace winnow::engine {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// From token to sink: whole characters, up to a stop string.
class TextOutput {
 public:
  TextOutput(const text::Tokenizer& tokenizer, std::vector<std::string> stops, const TextSink& sink)
      : decoder_(tokenizer), stops_(std::move(stops)), sink_(sink) {}

  void push(TokenId token) { emit(stops_.push(decoder_.push(token))); }
  bool stopped() const { return stops_.found(); }
  void finish() {
    emit(stops_.push(decoder_.finish()));
    emit(stops_.finish());
  }

 private:
  void emit(const std::string& text) const {
    if (!text.empty()) sink_(text);
  }

  text::StreamDecoder decoder_;
  StopFinder stops_;
  const TextSink& sink_;
};

/// Runs the prompt; empty when interrupted before its end.
std::span<const float> prefill(const NextLogits& next, std::span<const TokenId> prompt,
                               std::size_t chunk, const Log& log) {
  std::span<const float> logits;
  for (std::size_t begin = 0; begin < prompt.size(); begin += chunk) {
    if (log.stop_requested()) return {};
    logits = next(prompt.subspan(begin, std::min(chunk, prompt.size() - begin)));
  }
  return logits;
}

}  // namespace

std::string_view to_string(StopReason reason) {
  switch (reason) {
    case StopReason::kEndToken:
      return "end_token";
    case StopReason::kStopString:
      return "stop_string";
    case StopReason::kLimit:
      return "limit";
    case StopReason::kInterrupted:
      return "interrupted";
  }
  return "";
}

GenerateResult generate(const NextLogits& next, const text::Tokenizer& tokenizer,
                        std::span<const TokenId> prompt, std::size_t capacity,
                        const GenerateOptions& options, const TextSink& sink, const Log& log) {
  WINNOW_CHECK(!prompt.empty() && prompt.size() <= capacity && options.prefill_chunk >= 1);
  const Clock::time_point start = Clock::now();
  Sampler sampler(options.sampler);
  TextOutput output(tokenizer, options.stop, sink);
  GenerateResult result;
  std::span<const float> logits = prefill(next, prompt, options.prefill_chunk, log);
  result.prefill_seconds = seconds_since(start);
  if (logits.empty()) {
    result.reason = StopReason::kInterrupted;
    return result;
  }
  const std::size_t limit = std::min(options.max_tokens, capacity - prompt.size() + 1);
  std::vector<TokenId> history(prompt.begin(), prompt.end());
  while (result.tokens.size() < limit) {
    const TokenId token = sampler.sample(logits, history);
    history.push_back(token);
    result.tokens.push_back(token);
    if (result.tokens.size() == 1) result.first_token_seconds = seconds_since(start);
    if (tokenizer.ends_generation(token) && !options.ignore_end) {
      result.reason = StopReason::kEndToken;
      break;
    }
    output.push(token);
    if (output.stopped()) result.reason = StopReason::kStopString;
    if (!output.stopped() && log.stop_requested()) result.reason = StopReason::kInterrupted;
    if (result.reason != StopReason::kLimit || result.tokens.size() == limit) break;
    logits = next(std::span(&token, 1));
  }
  if (!result.tokens.empty()) {
    result.decode_seconds = seconds_since(start) - result.first_token_seconds;
  }
  output.finish();
  return result;
}

GenerateResult generate(Engine& engine, KvCache& cache, const text::Tokenizer& tokenizer,
                        std::span<const TokenId> prompt, const GenerateOptions& options,
                        const TextSink& sink, const Log& log) {
  WINNOW_CHECK(cache.length() == 0);
  const auto next = [&](std::span<const TokenId> tokens) {
    return engine.next_logits(cache, tokens);
  };
  return generate(next, tokenizer, prompt, cache.capacity(), options, sink, log);
}

StopFinder::StopFinder(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_) WINNOW_CHECK(!stop.empty());
}

std::string StopFinder::push(std::string_view piece) {
  if (found_) return {};
  held_ += piece;
  // The one that is complete first counts, so that the result does not depend on the pieces.
  std::size_t first_end = std::string::npos;
  std::size_t begin = 0;
  for (const std::string& stop : stops_) {
    const std::size_t found = held_.find(stop);
    if (found == std::string::npos || found + stop.size() > first_end) continue;
    begin = found + stop.size() < first_end ? found : std::min(begin, found);
    first_end = found + stop.size();
  }
  if (first_end != std::string::npos) {
    found_ = true;
    return std::exchange(held_, {}).substr(0, begin);
  }
  // Hold back the longest end of the text that begins a stop string.
  std::size_t keep = 0;
  for (const std::string& stop : stops_) {
    for (std::size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n) {
      if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, n))) keep = n;
    }
  }
  std::string certain = held_.substr(0, held_.size() - keep);
  held_.erase(0, certain.size());
  return certain;
}

std::string StopFinder::finish() { return std::exchange(held_, {}); }

}  // namespace winnow::engine

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The work that `winnow bench` times: random tokens, or a text's, through a model.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/log.h"
#include "base/rng.h"
#include "engine/engine.h"
#include "tensor/matrix.h"

namespace winnow::cli {

/// Where the tokens come from.
struct WorkloadTokens {
  std::vector<TokenId> text;  ///< one after another, from its beginning again at its end; random
                              ///< ones when empty
  /// Every pass takes the next tokens. Else all have the same, which is what a cache of experts
  /// must not see: it would know them from the pass before.
  bool fresh = false;
};

/// A model with one prompt and several sequences to continue. Holds a cache for each sequence.
class Workload {
 public:
  static constexpr std::uint64_t kSeed = 0;
  static constexpr std::size_t kPrefillChunk = 512;  // as in `run`
  /// Single tokens that bring code and weights into reach before the clock starts.
  static constexpr std::size_t kWarmUpTokens = 16;

  /// `engine` is borrowed. prompt, generate: tokens, at least 1; sequences: at least 1; chunk:
  /// prompt tokens run together at most.
  Workload(engine::Engine& engine, std::size_t prompt, std::size_t generate, std::size_t sequences,
           std::size_t chunk = kPrefillChunk, WorkloadTokens tokens = {});

  /// Called between tokens with the seconds since the last call, or since the beginning; the clock
  /// stands still meanwhile.
  using Pause = std::function<void(double seconds)>;
  /// Tokens between two pauses; a prompt has one, at its end.
  static constexpr std::size_t kPauseTokens = 16;

  // All return seconds, begin with empty caches, and throw Error{kInterrupted} when asked to stop.

  /// The whole prompt.
  double prefill(const Log& log, const Pause& pause = {});
  /// `count` tokens of the first sequence, one at a time; at most `generate`.
  double decode(std::size_t count, const Log& log, const Pause& pause = {});
  /// `count` tokens of every sequence, a step taking one of each.
  double decode_together(std::size_t count, const Log& log, engine::Observer* observer = nullptr);

 private:
  /// Tokens of the first sequence, whose cache ends where they begin.
  double run(os::Range tokens, std::size_t chunk, const Log& log);
  TokenId next_token();
  /// The first `count` tokens of a sequence, where every pass has its own.
  void draw(std::size_t sequence, std::size_t count);

  engine::Engine& engine_;
  WorkloadTokens source_;
  Rng rng_{kSeed};
  std::size_t read_ = 0;  // tokens of the source's text
  std::size_t prompt_;
  std::size_t chunk_;
  std::vector<engine::KvCache> caches_;       // [sequences]; the first has room for all
  std::vector<std::vector<TokenId>> tokens_;  // [sequences][capacity]
  std::vector<engine::SequenceInput> step_;   // [sequences]
  tensor::Matrix<float> logits_;              // [sequences, vocab_size]
};

}  // namespace winnow::cli

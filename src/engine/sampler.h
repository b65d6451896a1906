// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Choosing the next token from logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/rng.h"
#include "base/units.h"

namespace winnow::engine {

/// The defaults are greedy decoding.
struct SamplerOptions {
  double temperature = 0;        ///< 0: greedy; otherwise > 0
  std::uint32_t top_k = 0;       ///< keep the k most likely; 0: all
  double top_p = 1;              ///< keep the smallest set with at least this probability, (0, 1]
  double min_p = 0;              ///< drop tokens below this share of the best one's, [0, 1)
  double repeat_penalty = 1;     ///< > 0; divides positive and multiplies negative logits of tokens
                                 ///< in the last `repeat_last_n` (CTRL, arXiv:1909.05858)
  double presence_penalty = 0;   ///< subtracted once from the logit of a token seen there
  double frequency_penalty = 0;  ///< subtracted for each time it was seen there
  std::uint32_t repeat_last_n = 64;  ///< how far back the penalties look; 0: everywhere
  std::uint64_t seed = 0;
};

/// Deterministic for a seed. Filters apply in the order penalties, temperature, top-k, top-p,
/// min-p; ties go to the lower token id.
class Sampler {
 public:
  /// Throws Error{kUsage} that names an option out of range.
  explicit Sampler(const SamplerOptions& options);

  /// logits: [vocab_size]; history: the tokens of prompt and output so far.
  TokenId sample(std::span<const float> logits, std::span<const TokenId> history);

 private:
  struct Candidate {
    TokenId token;
    double logit;
  };
  void penalize(std::vector<double>& logits, std::span<const TokenId> history) const;
  TokenId draw(std::vector<Candidate>& candidates);

  SamplerOptions options_;
  Rng rng_;
};

}  // namespace winnow::engine

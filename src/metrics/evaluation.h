// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Perplexity of a model on text, and its distance from a reference model.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/log.h"
#include "engine/engine.h"
#include "metrics/text_data.h"

namespace winnow::metrics {

/// Means over the scored tokens of one domain, or of all.
struct Scores {
  std::uint64_t tokens = 0;
  double nll = 0;  ///< nats per token
  double nll_standard_error = 0;
  /// Only with a reference model:
  double kl_divergence = 0;  ///< KL(reference || model), nats per token
  double kl_standard_error = 0;
  double kl_p99 = 0;
  double top1_agreement = 0;     ///< share of tokens where both prefer the same one
  double routing_agreement = 0;  ///< mean over tokens and MoE layers of shared experts / top_k
  double esap = 0;               ///< mean of 1 - total variation (expected acceptance rate)
};

struct Evaluation {
  bool has_reference = false;
  bool has_routing = false;  ///< both models are mixtures of experts with the same layers
  Scores all;
  std::vector<std::pair<std::string, Scores>> domains;
};

/// What one scored token adds, for paired comparisons of several models on the same text.
struct ScoredToken {
  std::size_t domain = 0;  ///< index into WindowSet::domains
  std::size_t window = 0;  ///< index into WindowSet::windows
  double nll = 0;          ///< nats
  double kl = 0;           ///< KL(reference || model), nats; 0 without a reference
  bool same_top = false;   ///< both prefer the same token; false without a reference
};

/// Rows of logits that an evaluation holds at a time, of each model: 64 rows of a vocabulary of
/// 150,000 are 38 MB.
constexpr std::size_t kLogitRows = 64;

/// Scores every window with `model` and, when not null, compares with `reference`, which must have
/// the same vocabulary. Standard errors treat windows as independent and tokens within one as
/// dependent. Domains without a scored token are left out. `tokens`, when not null, is overwritten
/// with all scored tokens in the order of the windows. Throws what Engine::forward does,
/// Error{kBadData} for different vocabularies or logits that are not finite, Error{kInterrupted}.
Evaluation evaluate(engine::Engine& model, engine::Engine* reference, const WindowSet& windows,
                    Log& log, std::vector<ScoredToken>* tokens = nullptr);

/// `tokens, nll, perplexity, domains{...}`, with the reference's keys where there is one.
Json to_json(const Evaluation& evaluation);

/// `domains` (their names), `has_reference`, and one list per member of ScoredToken, all of the
/// same length. domains: WindowSet::domains of the evaluated windows.
Json to_json(std::span<const ScoredToken> tokens, std::span<const std::string> domains,
             bool has_reference);

}  // namespace winnow::metrics

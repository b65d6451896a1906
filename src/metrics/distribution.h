// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Comparing next-token distributions. Logits are f32; everything here is in f64.
#pragma once

#include <cstddef>
#include <span>

namespace winnow::metrics {

/// log(sum(exp(logits))), computed without overflow. logits: [vocab_size], finite.
double log_sum_exp(std::span<const float> logits);

/// Index of the largest value, ties to the lower index.
std::size_t argmax(std::span<const float> values);

/// How far a model's distribution Q is from the reference's P at one position.
struct Divergence {
  double kl = 0;               ///< KL(P || Q) in nats, >= 0
  double total_variation = 0;  ///< sum |P - Q| / 2, in [0, 1]
  bool same_top = false;       ///< whether both prefer the same token
};

/// reference, model: logits [vocab_size] of the same vocabulary.
Divergence compare(std::span<const float> reference, std::span<const float> model);

}  // namespace winnow::metrics

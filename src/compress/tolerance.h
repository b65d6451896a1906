// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The smallest size within a stated loss: the dual of the budget, after EdgeMoE (arXiv:2308.14352),
// which looks for the smallest bit widths whose loss of accuracy stays tolerable.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "base/json.h"

namespace winnow::compress {

/// Sizes in bytes, divergences in nats per token.
struct ToleranceSearch {
  double tolerance = 0;     ///< > 0
  std::uint64_t least = 0;  ///< of what can be made
  std::uint64_t most = 0;   ///< whose divergence is 0
  /// Of the best that is made in so many bytes: predicted, and quick to tell. Never rises.
  std::function<double(std::uint64_t budget)> predicted;
  /// The same measured, and slow.
  std::function<double(std::uint64_t budget)> measured;
};

struct ToleranceResult {
  std::uint64_t budget = 0;  ///< the smallest that was measured to be within the tolerance
  double measured_kl = 0;
  Json attempts = Json::array();  ///< `budget`, `predicted_kl`, `measured_kl` of each
};

/// Aims at a predicted divergence, measures what that gives, and corrects the aim by the ratio,
/// until the measured one is at most the tolerance and at least 0.9 times it, or after six attempts
/// the best of them. The largest size is taken where no attempt succeeds. Deterministic.
ToleranceResult smallest_within(const ToleranceSearch& search);

}  // namespace winnow::compress

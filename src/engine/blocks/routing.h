// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// From router logits to chosen experts.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "base/units.h"
#include "engine/routing_policy.h"
#include "kernels/kernels.h"
#include "model/spec.h"

namespace winnow::engine {

/// Chooses the experts of one token.
/// logits: [num_experts]; experts, weights: [top_k], the highest score first, ties to the lower
/// index. Scores are softmax over all experts; the chosen ones are divided by their sum where the
/// spec says so. scratch: [num_experts].
/// Throws Error{kBadData} when a logit is not finite (damaged weights).
void route(const kernels::Kernels& kernels, const model::MoeSpec& moe,
           std::span<const float> logits, std::span<ExpertId> experts, std::span<float> weights,
           std::span<float> scratch);

/// The same among `kept` alone (ascending), as if the logits of the others were minus infinity:
/// the bits are those of a router that never had them. scratch: [2 * num_experts].
void route_among(const kernels::Kernels& kernels, const model::MoeSpec& moe,
                 std::span<const ExpertId> kept, std::span<const float> logits,
                 std::span<ExpertId> experts, std::span<float> weights, std::span<float> scratch);

/// What a policy asks of a layer's routes.
struct RouteLimits {
  std::size_t gates_over = 0;  ///< weights are divided by the sum over the best so many; >= chosen
  float skip_ratio = 0;        ///< see RoutingPolicy::skip_ratios
};

/// `route` under a policy. Returns how many of the chosen are used, the first ones; weights of the
/// others are 0. The ratio is that of the scores, which renormalising does not change: equal to the
/// one of the weights but for rounding. scratch, order: [num_experts].
std::size_t route_limited(const kernels::Kernels& kernels, const model::MoeSpec& moe,
                          const RouteLimits& limits, std::span<const float> logits,
                          std::span<ExpertId> experts, std::span<float> weights,
                          std::span<float> scratch, std::span<ExpertId> order);

/// `route` to the best `prefer.always` experts and, of the best `prefer.among`, to those that are
/// `present` [num_experts] before the others, each kind by score. Returns how many of the chosen
/// are none of the router's own choices. Weights are the scores of the chosen, divided by their sum
/// where the spec says so. scratch, order: [num_experts].
std::size_t route_preferring(const kernels::Kernels& kernels, const model::MoeSpec& moe,
                             const RoutingPolicy::PreferCached& prefer,
                             std::span<const std::uint8_t> present, std::span<const float> logits,
                             std::span<ExpertId> experts, std::span<float> weights,
                             std::span<float> scratch, std::span<ExpertId> order);

/// A batch's (token, choice) pairs sorted by expert, then token: each expert's work in one stretch.
struct GroupedRouting {
  std::size_t top_k = 0;               ///< choices of each token
  std::vector<ExpertId> experts;       ///< those chosen at least once, ascending
  std::vector<std::uint32_t> first;    ///< [experts + 1]: stretch of experts[i] in the slots
  std::vector<std::uint32_t> tokens;   ///< [slots]: token of each slot
  std::vector<float> weights;          ///< [slots]: router weight of each slot
  std::vector<std::uint32_t> slot_of;  ///< [tokens * top_k]: slot of each (token, choice)
};

/// In `GroupedRouting::slot_of` for a choice that is skipped; after it all of the token's are.
inline constexpr std::uint32_t kNoSlot = std::numeric_limits<std::uint32_t>::max();

/// chosen, weights: [tokens * top_k]. used: [tokens], how many of each token's choices get a slot;
/// empty: all.
GroupedRouting group_by_expert(std::span<const ExpertId> chosen, std::span<const float> weights,
                               std::size_t top_k, std::size_t num_experts,
                               std::span<const std::uint32_t> used = {});

}  // namespace winnow::engine

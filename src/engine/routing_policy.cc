// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/routing_policy.h"

#include <algorithm>

#include "base/error.h"

namespace winnow::engine {
namespace {

/// Of a layer that has any.
std::uint32_t fewest_experts(const model::ModelSpec& spec) {
  std::uint32_t fewest = spec.moe.num_experts;
  for (std::uint32_t l = 0; l < spec.num_hidden_layers; ++l) {
    if (spec.is_moe_layer(LayerId{l})) fewest = std::min(fewest, spec.num_experts(LayerId{l}));
  }
  return fewest;
}

void check_reduction(const RoutingPolicy& policy, const model::ModelSpec& spec) {
  const std::uint32_t top_k = spec.moe.top_k;
  if (policy.experts_per_token > top_k) {
    fail(ErrorCode::kUsage, "--experts-per-token: {} is not among 1 to {}, the model's own number",
         policy.experts_per_token, top_k);
  }
  if (policy.gates_over == 0) return;
  const std::uint32_t least = policy.experts_per_token == 0 ? top_k : policy.experts_per_token;
  const std::uint32_t most = fewest_experts(spec);
  if (policy.gates_over >= least && policy.gates_over <= most) return;
  fail(ErrorCode::kUsage,
       "--gates-over: {} is not among {} to {}, from the experts of a token to those of a layer",
       policy.gates_over, least, most);
}

void check_preference(const RoutingPolicy& policy, const model::ModelSpec& spec) {
  if (policy.reduces() || policy.skips()) {
    fail(ErrorCode::kUsage,
         "--prefer-cached goes with none of --experts-per-token, --gates-over and --skip-experts: "
         "choose one way");
  }
  const auto [always, among] = policy.prefer_cached;
  const std::uint32_t top_k = spec.moe.top_k;
  if (always <= top_k && among > top_k && among <= fewest_experts(spec)) return;
  fail(ErrorCode::kUsage,
       "--prefer-cached: {},{} is not J,M with J from 0 to {}, a token's experts, and M from {} to "
       "{}, those "
       "of a layer",
       always, among, top_k, top_k + 1, fewest_experts(spec));
}

}  // namespace

void check_routing_policy(const RoutingPolicy& policy, const model::ModelSpec& spec) {
  if (!policy.active()) return;
  if (spec.num_moe_layers() == 0) {
    fail(ErrorCode::kUsage,
         "the model has no experts: leave out --experts-per-token, --gates-over, --skip-experts "
         "and --prefer-cached");
  }
  if (policy.reduces() && policy.skips()) {
    fail(ErrorCode::kUsage,
         "--skip-experts goes with neither --experts-per-token nor --gates-over: choose one way");
  }
  check_reduction(policy, spec);
  if (policy.prefers()) check_preference(policy, spec);
  if (!policy.skips()) return;
  WINNOW_CHECK(policy.skip_ratios.size() == spec.num_hidden_layers);
  for (const float ratio : policy.skip_ratios) WINNOW_CHECK(ratio >= 0 && ratio <= 1);
}

void ExpertUse::add(LayerId layer, std::uint64_t tokens, std::uint64_t computed) {
  Slots& slots = layers_[index(layer)];
  slots.all += tokens * top_k_;
  slots.computed += computed;
}

std::optional<double> ExpertUse::Slots::skipped_share() const {
  if (all == 0) return std::nullopt;
  return static_cast<double>(all - computed) / static_cast<double>(all);
}

std::optional<double> ExpertUse::skipped_share() const {
  Slots total;
  for (const Slots& layer : layers_) {
    total.all += layer.all;
    total.computed += layer.computed;
  }
  return total.skipped_share();
}

std::optional<double> ExpertUse::redirected_share() const {
  std::uint64_t all = 0;
  for (const Slots& layer : layers_) all += layer.all;
  if (all == 0) return std::nullopt;
  return static_cast<double>(redirected_) / static_cast<double>(all);
}

std::vector<std::optional<double>> ExpertUse::layer_skipped_shares() const {
  std::vector<std::optional<double>> shares;
  for (const Slots& layer : layers_) shares.push_back(layer.skipped_share());
  return shares;
}

}  // namespace winnow::engine

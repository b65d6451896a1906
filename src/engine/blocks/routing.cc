// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/blocks/routing.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace winnow::engine {

void route(const kernels::Kernels& kernels, const model::MoeSpec& moe,
           std::span<const float> logits, std::span<ExpertId> experts, std::span<float> weights,
           std::span<float> scratch) {
  for (const float logit : logits) {
    if (!std::isfinite(logit)) {
      fail_data("a router logit is {}; the weights are damaged", logit);
    }
  }
  std::copy(logits.begin(), logits.end(), scratch.begin());
  kernels.softmax(scratch.data(), scratch.size());
  // Selection on the logits, whose order softmax keeps but whose differences it may round away.
  // top_k is small, so repeated scans are faster than a sort.
  float sum = 0;
  for (std::size_t k = 0; k < experts.size(); ++k) {
    std::size_t best = logits.size();
    for (std::size_t e = 0; e < logits.size(); ++e) {
      const auto taken = experts.first(k);
      if (best != logits.size() && !(logits[e] > logits[best])) continue;
      if (std::find(taken.begin(), taken.end(), ExpertId{static_cast<std::uint32_t>(e)}) !=
          taken.end()) {
        continue;
      }
      best = e;
    }
    experts[k] = ExpertId{static_cast<std::uint32_t>(best)};
    weights[k] = scratch[best];
    sum += scratch[best];
  }
  if (!moe.renormalize_top_k) return;
  for (float& weight : weights) weight /= sum;
}

void route_among(const kernels::Kernels& kernels, const model::MoeSpec& moe,
                 std::span<const ExpertId> kept, std::span<const float> logits,
                 std::span<ExpertId> experts, std::span<float> weights, std::span<float> scratch) {
  const std::span<float> kept_logits = scratch.first(kept.size());
  for (std::size_t i = 0; i < kept.size(); ++i) kept_logits[i] = logits[index(kept[i])];
  route(kernels, moe, kept_logits, experts, weights, scratch.subspan(logits.size(), kept.size()));
  for (ExpertId& expert : experts) expert = kept[index(expert)];
}

GroupedRouting group_by_expert(std::span<const ExpertId> chosen, std::span<const float> weights,
                               std::size_t top_k, std::size_t num_experts) {
  GroupedRouting grouped;
  grouped.top_k = top_k;
  std::vector<std::uint32_t> count(num_experts);
  for (const ExpertId expert : chosen) ++count[index(expert)];
  std::vector<std::uint32_t> next(num_experts);
  std::uint32_t slots = 0;
  for (std::uint32_t e = 0; e < num_experts; ++e) {
    if (count[e] == 0) continue;
    grouped.experts.push_back(ExpertId{e});
    grouped.first.push_back(slots);
    next[e] = slots;
    slots += count[e];
  }
  grouped.first.push_back(slots);
  grouped.tokens.resize(slots);
  grouped.weights.resize(slots);
  grouped.slot_of.resize(slots);
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const std::uint32_t slot = next[index(chosen[i])]++;
    grouped.tokens[slot] = static_cast<std::uint32_t>(i / top_k);
    grouped.weights[slot] = weights[i];
    grouped.slot_of[i] = slot;
  }
  return grouped;
}

}  // namespace winnow::engine

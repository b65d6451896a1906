// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/blocks/routing.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace winnow::engine {
namespace {

/// Softmax of all logits into `scores`. Throws Error{kBadData} for a logit that is not finite.
void score_all(const kernels::Kernels& kernels, std::span<const float> logits,
               std::span<float> scores) {
  for (const float logit : logits) {
    if (!std::isfinite(logit)) {
      fail_data("a router logit is {}; the weights are damaged", logit);
    }
  }
  std::copy(logits.begin(), logits.end(), scores.begin());
  kernels.softmax(scores.data(), scores.size());
}

/// The best `count` experts come first in `order`, the highest logit first, ties to the lower
/// index.
void rank_best(std::span<const float> logits, std::size_t count, std::span<ExpertId> order) {
  for (std::uint32_t e = 0; e < order.size(); ++e) order[e] = ExpertId{e};
  const auto better = [&](ExpertId a, ExpertId b) {
    const float of_a = logits[index(a)];
    const float of_b = logits[index(b)];
    return of_a > of_b || (of_a == of_b && index(a) < index(b));
  };
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(),
                    better);
}

}  // namespace

void route(const kernels::Kernels& kernels, const model::MoeSpec& moe,
           std::span<const float> logits, std::span<ExpertId> experts, std::span<float> weights,
           std::span<float> scratch) {
  score_all(kernels, logits, scratch);
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

std::size_t route_limited(const kernels::Kernels& kernels, const model::MoeSpec& moe,
                          const RouteLimits& limits, std::span<const float> logits,
                          std::span<ExpertId> experts, std::span<float> weights,
                          std::span<float> scratch, std::span<ExpertId> order) {
  WINNOW_DCHECK(limits.gates_over >= experts.size() && limits.gates_over <= order.size());
  score_all(kernels, logits, scratch);
  rank_best(logits, limits.gates_over, order);
  const auto score = [&](std::size_t k) { return scratch[index(order[k])]; };
  // The first below the limit and all after it: scores fall.
  std::size_t used = 1;
  if (limits.skip_ratio < 1) {
    while (used < experts.size() && !(score(used) < limits.skip_ratio * score(0))) ++used;
  }
  const std::size_t summed = used < experts.size() ? used : limits.gates_over;
  float sum = 0;
  for (std::size_t k = 0; k < summed; ++k) sum += score(k);
  for (std::size_t k = 0; k < experts.size(); ++k) {
    experts[k] = order[k];
    weights[k] = k >= used ? 0 : (moe.renormalize_top_k ? score(k) / sum : score(k));
  }
  return used;
}

std::size_t route_preferring(const kernels::Kernels& kernels, const model::MoeSpec& moe,
                             const RoutingPolicy::PreferCached& prefer,
                             std::span<const std::uint8_t> present, std::span<const float> logits,
                             std::span<ExpertId> experts, std::span<float> weights,
                             std::span<float> scratch, std::span<ExpertId> order) {
  WINNOW_DCHECK(prefer.always <= experts.size() && prefer.among >= experts.size() &&
                prefer.among <= order.size());
  score_all(kernels, logits, scratch);
  rank_best(logits, prefer.among, order);
  const std::span<ExpertId> best = order.first(prefer.among);
  std::size_t taken = 0;
  std::size_t redirected = 0;
  const auto take = [&](std::size_t rank) {
    redirected += rank >= experts.size() ? 1 : 0;
    experts[taken++] = best[rank];
  };
  for (std::size_t rank = 0; rank < prefer.always; ++rank) take(rank);
  for (const bool wanted : {true, false}) {
    for (std::size_t rank = prefer.always; rank < best.size() && taken < experts.size(); ++rank) {
      if ((present[index(best[rank])] != 0) == wanted) take(rank);
    }
  }
  float sum = 0;
  for (const ExpertId expert : experts) sum += scratch[index(expert)];
  for (std::size_t k = 0; k < experts.size(); ++k) {
    const float score = scratch[index(experts[k])];
    weights[k] = moe.renormalize_top_k ? score / sum : score;
  }
  return redirected;
}

GroupedRouting group_by_expert(std::span<const ExpertId> chosen, std::span<const float> weights,
                               std::size_t top_k, std::size_t num_experts,
                               std::span<const std::uint32_t> used) {
  const auto skipped = [&](std::size_t i) { return !used.empty() && i % top_k >= used[i / top_k]; };
  GroupedRouting grouped;
  grouped.top_k = top_k;
  std::vector<std::uint32_t> count(num_experts);
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    if (!skipped(i)) ++count[index(chosen[i])];
  }
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
  grouped.slot_of.assign(chosen.size(), kNoSlot);
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    if (skipped(i)) continue;
    const std::uint32_t slot = next[index(chosen[i])]++;
    grouped.tokens[slot] = static_cast<std::uint32_t>(i / top_k);
    grouped.weights[slot] = weights[i];
    grouped.slot_of[i] = slot;
  }
  return grouped;
}

}  // namespace winnow::engine

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"

namespace winnow::engine {
namespace {

void require_range(const char* name, double value, bool ok) {
  if (!std::isfinite(value) || !ok) {
    fail(ErrorCode::kUsage, "{}: {} is out of range", name, value);
  }
}

}  // namespace

Sampler::Sampler(const SamplerOptions& options) : options_(options), rng_(options.seed) {
  require_range("--temp", options.temperature, options.temperature >= 0);
  require_range("--top-p", options.top_p, options.top_p > 0 && options.top_p <= 1);
  require_range("--min-p", options.min_p, options.min_p >= 0 && options.min_p < 1);
  require_range("--repeat-penalty", options.repeat_penalty, options.repeat_penalty > 0);
  require_range("--presence-penalty", options.presence_penalty, true);
  require_range("--frequency-penalty", options.frequency_penalty, true);
}

void Sampler::penalize(std::vector<double>& logits, std::span<const TokenId> history) const {
  if (options_.repeat_last_n != 0 && history.size() > options_.repeat_last_n) {
    history = history.last(options_.repeat_last_n);
  }
  std::map<std::int32_t, int> counts;
  for (const TokenId token : history) ++counts[index(token)];
  for (const auto& [token, count] : counts) {
    double& logit = logits[static_cast<std::size_t>(token)];
    logit = logit > 0 ? logit / options_.repeat_penalty : logit * options_.repeat_penalty;
    logit -= options_.presence_penalty + options_.frequency_penalty * count;
  }
}

TokenId Sampler::draw(std::vector<Candidate>& candidates) {
  const double best = candidates.front().logit;
  std::vector<double> weights;
  double total = 0;
  for (const Candidate& candidate : candidates) {
    weights.push_back(std::exp((candidate.logit - best) / options_.temperature));
    total += weights.back();
  }
  // Candidates are sorted, so both filters keep a prefix.
  double kept = 0;
  std::size_t count = 0;
  while (count < weights.size() && weights[count] >= options_.min_p &&
         (count == 0 || kept < options_.top_p * total)) {
    kept += weights[count++];
  }
  double point = rng_.uniform() * kept;
  for (std::size_t i = 0; i + 1 < count; ++i) {
    point -= weights[i];
    if (point < 0) return candidates[i].token;
  }
  return candidates[count - 1].token;
}

TokenId Sampler::sample(std::span<const float> logits, std::span<const TokenId> history) {
  std::vector<double> adjusted(logits.begin(), logits.end());
  penalize(adjusted, history);
  if (options_.temperature == 0) {
    const auto best = std::max_element(adjusted.begin(), adjusted.end());
    return TokenId{static_cast<std::int32_t>(best - adjusted.begin())};
  }
  std::vector<Candidate> candidates;
  for (std::size_t i = 0; i < adjusted.size(); ++i) {
    candidates.push_back({TokenId{static_cast<std::int32_t>(i)}, adjusted[i]});
  }
  const std::size_t keep = options_.top_k == 0
                               ? candidates.size()
                               : std::min<std::size_t>(options_.top_k, candidates.size());
  std::partial_sort(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(keep),
                    candidates.end(), [](const Candidate& a, const Candidate& b) {
                      return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
                    });
  candidates.resize(keep);
  return draw(candidates);
}

}  // namespace winnow::engine

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "metrics/distribution.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace winnow::metrics {

double log_sum_exp(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit} - largest);
  return largest + std::log(sum);
}

std::size_t argmax(std::span<const float> values) {
  return static_cast<std::size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

Divergence compare(std::span<const float> reference, std::span<const float> model) {
  WINNOW_CHECK(reference.size() == model.size() && !reference.empty());
  const double log_z_p = log_sum_exp(reference);
  const double log_z_q = log_sum_exp(model);
  Divergence result;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    const double log_p = double{reference[i]} - log_z_p;
    const double log_q = double{model[i]} - log_z_q;
    const double p = std::exp(log_p);
    result.kl += p * (log_p - log_q);
    result.total_variation += std::fabs(p - std::exp(log_q));
  }
  // Rounding may leave -1e-17 for equal distributions.
  result.kl = std::max(result.kl, 0.0);
  result.total_variation *= 0.5;
  result.same_top = argmax(reference) == argmax(model);
  return result;
}

}  // namespace winnow::metrics

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/tolerance.h"

#include <algorithm>

namespace winnow::compress {
namespace {

constexpr int kAttempts = 6;
constexpr double kNearEnough = 0.9;  // of the tolerance
constexpr double kAim = 0.96;        // of it, so that predictions may err a little
// Sizes are told apart to this share of the largest.
constexpr std::uint64_t kSizeSteps = 4096;

/// The smallest size with at most this predicted divergence.
std::uint64_t smallest_predicted(const ToleranceSearch& search, double wanted) {
  if (search.predicted(search.least) <= wanted) return search.least;
  std::uint64_t low = search.least;  // too small
  std::uint64_t high = search.most;
  const std::uint64_t step = std::max<std::uint64_t>(search.most / kSizeSteps, 1);
  while (high - low > step) {
    const std::uint64_t middle = low + (high - low) / 2;
    (search.predicted(middle) <= wanted ? high : low) = middle;
  }
  return high;
}

}  // namespace

ToleranceResult smallest_within(const ToleranceSearch& search) {
  ToleranceResult result{search.most, 0, Json::array()};
  double wanted = kAim * search.tolerance;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const std::uint64_t budget = smallest_predicted(search, wanted);
    const double measured = search.measured(budget);
    result.attempts.push_back({{"budget", budget},
                               {"predicted_kl", search.predicted(budget)},
                               {"measured_kl", measured}});
    const bool within = measured <= search.tolerance;
    if (within && budget < result.budget) {
      result.budget = budget;
      result.measured_kl = measured;
    }
    if (within && (measured >= kNearEnough * search.tolerance || budget == search.least)) break;
    // A divergence of nothing says nothing of the ratio.
    wanted *= measured > 0 ? std::clamp(kAim * search.tolerance / measured, 0.1, 10.0) : 10.0;
  }
  return result;
}

}  // namespace winnow::compress

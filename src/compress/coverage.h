// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Whether a text was enough to judge the experts of a model by.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/json.h"
#include "base/units.h"
#include "compress/statistics_file.h"

namespace winnow::compress {

/// An expert with fewer hits is not judged by its own tokens alone.
inline constexpr std::uint64_t kFewHits = 256;

struct LayerCoverage {
  LayerId layer;
  std::uint64_t least_hits = 0;
  std::uint64_t median_hits = 0;  ///< the lower one of two
  /// Kendall's tau-b between the experts' rankings by mean gated output norm on the even and on the
  /// odd sequences; 0.95 or more: the text is long enough to rank by. Nothing when a half is empty.
  std::optional<double> rank_agreement;
  std::vector<ExpertId> under_sampled;  ///< those with fewer than kFewHits
};

/// Of all domains together, one entry per MoE layer. Throws as reading does.
std::vector<LayerCoverage> measure_coverage(const StatisticsFile& statistics);

/// Kendall's tau-b of two rankings of the same things, in [-1, 1]; 0 when one of them has no order.
double rank_agreement(std::span<const double> a, std::span<const double> b);

Json to_json(const LayerCoverage& coverage);

}  // namespace winnow::compress

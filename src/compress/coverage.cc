// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/coverage.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace winnow::compress {
namespace {

/// Sums over domains of an array of one layer.
template <typename Values>
void add_values(Values& sum, const Values& values) {
  if (sum.empty()) sum.resize(values.size());
  if (sum.size() != values.size()) fail_data("domains have arrays of different sizes");
  for (std::size_t i = 0; i < values.size(); ++i) sum[i] += values[i];
}

/// Mean gated output norm on one half of the sequences; 0 for experts that it never chose.
std::vector<double> half_scores(std::span<const double> norms,
                                std::span<const std::uint64_t> hits) {
  std::vector<double> scores(norms.size());
  for (std::size_t e = 0; e < scores.size(); ++e) {
    if (hits[e] > 0) scores[e] = norms[e] / static_cast<double>(hits[e]);
  }
  return scores;
}

LayerCoverage cover(LayerId layer, std::span<const std::uint64_t> hits,
                    std::span<const std::uint64_t> half_hits, std::span<const double> half_norms) {
  LayerCoverage coverage;
  coverage.layer = layer;
  std::vector<std::uint64_t> sorted(hits.begin(), hits.end());
  std::sort(sorted.begin(), sorted.end());
  coverage.least_hits = sorted.front();
  coverage.median_hits = sorted[(sorted.size() - 1) / 2];
  for (std::uint32_t e = 0; e < hits.size(); ++e) {
    if (hits[e] < kFewHits) coverage.under_sampled.push_back(ExpertId{e});
  }
  const std::size_t n = hits.size();
  const auto is_empty = [](std::span<const std::uint64_t> half) {
    return std::all_of(half.begin(), half.end(), [](std::uint64_t count) { return count == 0; });
  };
  if (is_empty(half_hits.first(n)) || is_empty(half_hits.subspan(n))) return coverage;
  coverage.rank_agreement =
      rank_agreement(half_scores(half_norms.first(n), half_hits.first(n)),
                     half_scores(half_norms.subspan(n), half_hits.subspan(n)));
  return coverage;
}

}  // namespace

double rank_agreement(std::span<const double> a, std::span<const double> b) {
  WINNOW_CHECK(a.size() == b.size());
  double agreement = 0;
  double pairs_a = 0;
  double pairs_b = 0;
  const auto sign = [](double x) { return x > 0 ? 1.0 : x < 0 ? -1.0 : 0.0; };
  for (std::size_t i = 0; i < a.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      const double in_a = sign(a[i] - a[j]);
      const double in_b = sign(b[i] - b[j]);
      agreement += in_a * in_b;
      pairs_a += in_a * in_a;
      pairs_b += in_b * in_b;
    }
  }
  return pairs_a == 0 || pairs_b == 0 ? 0 : agreement / std::sqrt(pairs_a * pairs_b);
}

std::vector<LayerCoverage> measure_coverage(const StatisticsFile& statistics) {
  std::vector<LayerCoverage> layers;
  const StatisticsHeader& header = statistics.header();
  for (std::uint32_t l = 0; l < header.num_hidden_layers; ++l) {
    std::vector<std::uint64_t> hits, half_hits;
    std::vector<double> half_norms;
    for (std::size_t d = 0; d < header.domains.size(); ++d) {
      const std::string prefix = layer_prefix(d, LayerId{l});
      if (statistics.find(prefix + "hits") == nullptr) continue;
      add_values(hits, statistics.counts(prefix + "hits"));
      add_values(half_hits, statistics.counts(prefix + "half_hits"));
      add_values(half_norms, statistics.doubles(prefix + "half_gated_output_norms"));
    }
    if (hits.empty()) continue;
    if (half_hits.size() != 2 * hits.size() || half_norms.size() != 2 * hits.size()) {
      fail_data("{}: the halves of layer {} are not of {} experts", statistics.name(), l,
                hits.size());
    }
    layers.push_back(cover(LayerId{l}, hits, half_hits, half_norms));
  }
  return layers;
}

Json to_json(const LayerCoverage& coverage) {
  Json json;
  json["layer"] = index(coverage.layer);
  json["least_hits"] = coverage.least_hits;
  json["median_hits"] = coverage.median_hits;
  json["split_half_rank_agreement"] =
      coverage.rank_agreement ? Json(*coverage.rank_agreement) : Json(nullptr);
  json["under_sampled"] = Json::array();
  for (const ExpertId expert : coverage.under_sampled) {
    json["under_sampled"].push_back(index(expert));
  }
  return json;
}

}  // namespace winnow::compress

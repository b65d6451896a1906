// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/expert_selection.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace winnow::compress {

#define SELECTION(selection) extern const ExpertSelection selection;
#include "compress/selections/registry.def"
#undef SELECTION

std::span<const ExpertSelection* const> expert_selections() {
  static constexpr std::array kAll = {
#define SELECTION(selection) &selection,
#include "compress/selections/registry.def"
#undef SELECTION
  };
  return kAll;
}

const ExpertSelection* find_expert_selection(std::string_view name) {
  for (const ExpertSelection* selection : expert_selections()) {
    if (selection->name == name) return selection;
  }
  return nullptr;
}

std::string expert_selection_names() {
  std::string names;
  for (const ExpertSelection* selection : expert_selections()) {
    names.append(names.empty() ? "" : ", ").append(selection->name);
  }
  return names;
}

std::vector<double> SelectionContext::sums(std::string_view array, std::size_t size) const {
  std::vector<double> total(size);
  for (std::size_t d = 0; d < statistics->header().domains.size(); ++d) {
    const std::string name = layer_prefix(d, layer) + std::string(array);
    const formats::TensorInfo* info = statistics->find(name);
    std::vector<double> values;
    if (info != nullptr && info->type_name == "U64") {
      const std::vector<std::uint64_t> counts = statistics->counts(name);
      values.assign(counts.begin(), counts.end());
    } else {
      values = statistics->doubles(name);
    }
    if (values.size() != size) {
      fail_data("{}: array '{}' has {} elements, expected {}", statistics->name(), name,
                values.size(), size);
    }
    const double share = weight(statistics->header().domains[d].name);
    for (std::size_t i = 0; i < size; ++i) total[i] += share * values[i];
  }
  return total;
}

std::vector<ExpertId> highest(std::span<const double> scores, const std::vector<bool>& is_protected,
                              std::size_t keep) {
  std::vector<std::uint32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    if (is_protected[a] != is_protected[b]) return bool{is_protected[a]};
    return scores[a] > scores[b];
  });
  std::vector<ExpertId> kept;
  for (std::size_t i = 0; i < keep; ++i) kept.push_back(ExpertId{order[i]});
  std::sort(kept.begin(), kept.end());
  return kept;
}

std::vector<double> mean_over_hits(const SelectionContext& context, std::string_view array) {
  std::vector<double> means = context.sums(array, context.num_experts());
  const std::vector<double> hits = context.sums("hits", context.num_experts());
  for (std::size_t e = 0; e < means.size(); ++e) means[e] = hits[e] > 0 ? means[e] / hits[e] : 0.0;
  return means;
}

namespace {

/// Linear interpolation between the two nearest of the sorted values.
double percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  const double place = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
}

/// The largest entry of each expert's outputs, over all domains.
std::vector<double> largest_entries(const StatisticsFile& statistics, LayerId layer,
                                    std::size_t experts) {
  std::vector<double> largest(experts);
  for (std::size_t d = 0; d < statistics.header().domains.size(); ++d) {
    const std::string name = layer_prefix(d, layer) + "output_max";
    const std::vector<float> values = statistics.floats(name);
    if (values.size() != experts) {
      fail_data("{}: array '{}' has {} elements, expected {}", statistics.name(), name,
                values.size(), experts);
    }
    for (std::size_t e = 0; e < experts; ++e) largest[e] = std::max(largest[e], double{values[e]});
  }
  return largest;
}

void require_statistics(const StatisticsFile* statistics, const ExpertSelection& selection) {
  if (statistics != nullptr || !selection.needs_statistics) return;
  fail(ErrorCode::kUsage,
       "experts are chosen by '{}' from statistics of the model: give --statistics with what "
       "`winnow profile` wrote",
       selection.name);
}

}  // namespace

std::vector<std::vector<bool>> super_experts(const model::Checkpoint& source,
                                             const StatisticsFile& statistics) {
  const model::ModelSpec& spec = source.spec();
  std::vector<std::vector<double>> largest(spec.num_hidden_layers);
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    if (!spec.is_moe_layer(LayerId{layer})) continue;
    largest[layer] = largest_entries(statistics, LayerId{layer}, spec.moe.num_experts);
  }
  return super_experts(largest);
}

std::vector<std::vector<bool>> super_experts(const std::vector<std::vector<double>>& largest) {
  std::vector<double> all;
  for (const auto& layer : largest) all.insert(all.end(), layer.begin(), layer.end());
  std::vector<std::vector<bool>> result(largest.size());
  if (all.empty()) return result;
  const double tenth = *std::max_element(all.begin(), all.end()) / 10;
  const double bar = std::max(percentile(all, 0.995), tenth);
  for (std::size_t layer = 0; layer < result.size(); ++layer) {
    for (const double entry : largest[layer]) result[layer].push_back(entry > bar);
  }
  return result;
}

std::vector<std::vector<ExpertId>> select_experts(const model::Checkpoint& source,
                                                  const StatisticsFile* statistics,
                                                  const DomainWeight& weight,
                                                  const SelectionRequest& request) {
  const model::ModelSpec& spec = source.spec();
  require_statistics(statistics, *request.selection);
  if (request.keep < spec.moe.top_k || request.keep > spec.moe.num_experts) {
    fail(ErrorCode::kUsage,
         "{}: {} experts of a layer cannot be kept: it has {}, and every token goes to {}; keep {} "
         "to {}",
         source.file().name(), request.keep, spec.moe.num_experts, spec.moe.top_k, spec.moe.top_k,
         spec.moe.num_experts);
  }
  std::vector<std::vector<bool>> is_protected(spec.num_hidden_layers);
  if (statistics != nullptr && request.protects_super_experts) {
    is_protected = super_experts(source, *statistics);
  }
  std::vector<std::vector<ExpertId>> kept(spec.num_hidden_layers);
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    if (!spec.is_moe_layer(LayerId{layer})) continue;
    is_protected[layer].resize(spec.moe.num_experts);
    const auto super = static_cast<std::size_t>(
        std::count(is_protected[layer].begin(), is_protected[layer].end(), true));
    if (super > request.keep) {
      fail(
          ErrorCode::kUsage,
          "layer {} has {} super experts, whose outputs are far above all others: keep as many, or "
          "do without their protection",
          layer, super);
    }
    kept[layer] = request.selection->select(
        {source, LayerId{layer}, statistics, weight, is_protected[layer]}, request.keep);
    WINNOW_CHECK(kept[layer].size() == request.keep);
  }
  return kept;
}

}  // namespace winnow::compress

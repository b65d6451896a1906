// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/reduced_model.h"

#include <algorithm>

#include "base/error.h"
#include "cli/domain_weights.h"
#include "compress/imatrix_use.h"
#include "compress/statistics_file.h"

namespace winnow::cli {
namespace {

void warn_of_super_experts(const std::string& place, const model::Checkpoint& original,
                           const compress::StatisticsFile& statistics,
                           const std::vector<std::vector<ExpertId>>& kept, Log& log) {
  const std::vector<std::vector<bool>> super = compress::super_experts(original, statistics);
  std::string names;
  for (std::size_t l = 0; l < super.size(); ++l) {
    for (std::uint32_t e = 0; e < super[l].size(); ++e) {
      const bool stays = std::find(kept[l].begin(), kept[l].end(), ExpertId{e}) != kept[l].end();
      if (!super[l][e] || stays) continue;
      names += fmt::format("{}{} of layer {}", names.empty() ? "" : ", ", e, l);
    }
  }
  if (names.empty()) return;
  log.warn(fmt::format(
      "{}: super experts are left out, whose outputs are far larger than others' and hold the "
      "model together: {}; protect_super_experts = true keeps them",
      place, names));
}

}  // namespace

Json to_json(const ReducedModel& reduced) {
  Json kept = Json::array();
  for (const auto& layer : reduced.kept) {
    Json experts = Json::array();
    for (const ExpertId expert : layer) experts.push_back(index(expert));
    kept.push_back(experts);
  }
  return {{"select", std::string(reduced.request.selection->name)},
          {"source", std::string(reduced.request.selection->source)},
          {"keep", reduced.request.keep},
          {"protect_super_experts", reduced.request.protects_super_experts},
          {"kept", kept}};
}

std::optional<ReducedModel> reduce(const ReductionInput& input, const compress::Recipe& recipe,
                                   const model::Checkpoint& original, Log& log) {
  if (!recipe.experts) return std::nullopt;
  const std::string place = fmt::format("{}:{}", input.recipe, recipe.experts_line);
  if (!input.has_data) {
    fail(ErrorCode::kUsage, "{}: experts are left out: give --data, on which the rest is measured",
         place);
  }
  std::optional<compress::StatisticsFile> statistics;
  if (!input.statistics.empty() && !compress::is_imatrix(input.statistics)) {
    statistics.emplace(compress::StatisticsFile::open(input.statistics));
    statistics->require_model(original);
  }
  compress::DomainWeight weight = [](const std::string&) { return 1.0; };
  if (statistics) weight = weight_of_domain(input.weights, *statistics);
  auto kept = with_context(place, [&] {
    return compress::select_experts(original, statistics ? &*statistics : nullptr, weight,
                                    *recipe.experts);
  });
  if (statistics) warn_of_super_experts(place, original, *statistics, kept, log);
  auto reduced = model::Checkpoint::open(input.model).with_experts(kept);
  return ReducedModel{*recipe.experts, std::move(kept), std::move(reduced)};
}

}  // namespace winnow::cli

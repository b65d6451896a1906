// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Which experts of a layer to keep: published scores by their names, and exact choices of sets. A
// further one is a file in selections/ with its function and a line in registry.def.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.h"
#include "compress/statistics_use.h"
#include "model/checkpoint.h"

namespace winnow::compress {

/// What is known of a layer's N experts; all borrowed.
struct SelectionContext {
  const model::Checkpoint& source;
  LayerId layer;
  /// Statistics of the model; null for selections that need none.
  const StatisticsFile* statistics = nullptr;
  const DomainWeight& weight;
  /// [N]: experts that have to be kept.
  const std::vector<bool>& is_protected;

  std::size_t num_experts() const { return source.spec().moe.num_experts; }
  /// An array of sums or counts of the layer, its domains added with their weights. size: elements.
  /// Throws Error{kBadData} when the array is missing or has another size.
  std::vector<double> sums(std::string_view array, std::size_t size) const;
};

/// One way to choose.
struct ExpertSelection {
  std::string_view name;    ///< as the recipe has it
  std::string_view source;  ///< the paper
  bool needs_statistics;
  /// The experts to keep, rising; `keep` of them, in [1, N], at least the protected ones.
  std::vector<ExpertId> (*select)(const SelectionContext& context, std::size_t keep);
};

std::span<const ExpertSelection* const> expert_selections();
/// Null when there is no such selection.
const ExpertSelection* find_expert_selection(std::string_view name);
/// All names, for messages.
std::string expert_selection_names();

/// The `keep` highest scores [N] and all protected experts; ties to the lower index.
std::vector<ExpertId> highest(std::span<const double> scores, const std::vector<bool>& is_protected,
                              std::size_t keep);
/// Per expert sum / hits, 0 where there was no hit.
std::vector<double> mean_over_hits(const SelectionContext& context, std::string_view array);

/// Super experts (REAP's rule, on magnitudes): those whose largest output entry is above the 99.5th
/// percentile of all experts of all layers and above a tenth of the largest. [layers][N], empty for
/// dense layers.
std::vector<std::vector<bool>> super_experts(const model::Checkpoint& source,
                                             const StatisticsFile& statistics);

/// The same rule on the largest magnitudes of outputs [layers][N].
std::vector<std::vector<bool>> super_experts(const std::vector<std::vector<double>>& largest);

struct SelectionRequest {
  const ExpertSelection* selection = nullptr;
  std::size_t keep = 0;  ///< in every MoE layer
  bool protects_super_experts = true;
};

/// For `Checkpoint::with_experts`. statistics may be null where the selection needs none; nothing
/// is protected then. Throws Error{kUsage} when it is missing, `keep` is not in [top_k, N], or a
/// layer has more super experts than that.
std::vector<std::vector<ExpertId>> select_experts(const model::Checkpoint& source,
                                                  const StatisticsFile* statistics,
                                                  const DomainWeight& weight,
                                                  const SelectionRequest& request);

}  // namespace winnow::compress

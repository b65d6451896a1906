// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What may stand for an expert in the place of its matrices. A further way is a file in
// replacements/ with its table entry and a line in registry.def.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.h"
#include "compress/expert_sums.h"
#include "engine/overrides.h"
#include "model/spec.h"

namespace winnow::compress {

struct ExpertReplacement {
  std::string_view name;    ///< as recipes and the run record have it
  std::string_view source;  ///< the paper
  engine::ExpertSubstitute::Kind substitute;
  /// What the output has in its place; nothing: not even a row of the router.
  std::optional<model::ExpertKind> kind;
  /// Sum over the text of the squared change of the layer's output; infinite where it cannot be.
  double (*squared_change)(const ExpertSums& sums);
};

std::span<const ExpertReplacement* const> expert_replacements();
/// Null when there is no such replacement.
const ExpertReplacement* find_expert_replacement(std::string_view name);
/// All names, for messages.
std::string expert_replacement_names();

/// The vector [hidden_size] that stands for an expert with the least squared change: the mean of
/// its outputs weighted with g^2. Zero for an expert without tokens.
std::vector<float> best_constant(const ExpertSums& sums);

/// Per token of the text, the squared change of the layer's output, by `squared_changes` [experts],
/// sums over the text. An expert counts as if `pseudo_tokens` more tokens were sent to it that do
/// what those of the layer do in the mean: one that this text does not need is not therefore free.
double change_per_token(std::span<const double> squared_changes, const LayerSums& layer,
                        ExpertId expert, double pseudo_tokens = 0.5);
/// That of a replacement.
double change_per_token(const ExpertReplacement& replacement, const LayerSums& layer,
                        ExpertId expert, double pseudo_tokens = 0.5);

}  // namespace winnow::compress

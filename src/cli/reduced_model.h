// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The model that a recipe leaves: some of the experts of every layer.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/log.h"
#include "compress/expert_selection.h"
#include "compress/recipe.h"
#include "model/checkpoint.h"

namespace winnow::cli {

struct ReducedModel {
  compress::SelectionRequest request;
  std::vector<std::vector<ExpertId>> kept;  ///< of each layer
  model::Checkpoint checkpoint;
};

/// What the command line has to do with it; borrowed.
struct ReductionInput {
  const std::string& model;
  const std::string& recipe;      ///< its path
  const std::string& statistics;  ///< may be empty
  const std::vector<std::string>& weights;
  bool has_data = false;
};

/// Nothing where the recipe keeps all. Warns of super experts that go (REAP, arXiv:2510.13999: what
/// they do holds the model together), where statistics tell. Throws Error{kUsage} naming recipe and
/// line.
std::optional<ReducedModel> reduce(const ReductionInput& input, const compress::Recipe& recipe,
                                   const model::Checkpoint& original, Log& log);

/// For the run record.
Json to_json(const ReducedModel& reduced);

}  // namespace winnow::cli

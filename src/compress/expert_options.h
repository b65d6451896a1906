// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What may become of single experts, as a user says it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "compress/expert_replacement.h"
#include "compress/tensor_group.h"
#include "model/spec.h"

namespace winnow::compress {

struct ExpertOptions {
  /// Every expert's matrices may have types of their own. Replacements ask for that too.
  bool types = false;
  std::vector<const ExpertReplacement*> replacements;
  bool narrow = false;  ///< Whether experts may lose inner channels
  /// How often the slopes of replacements are measured on what they led to.
  int rounds = 4;
  /// What share of the text to come is taken to use all experts alike (other_text.h), in [0, 1].
  double other_text = 0.8;
  /// What asks for them, as errors name it.
  std::string asked_by = "--expert-options";

  bool any() const { return types || narrow || !replacements.empty(); }
};

/// "all", or names of replacements, "narrow" and "types", separated by commas. Throws
/// Error{kUsage}.
ExpertOptions expert_options_of_names(const std::string& names);

/// Whether the matrices of a group of one expert are there in the smallest possible file: there are
/// no replacements for all experts of a layer, and it is not among those that may be replaced.
bool stays_at_least(const ExpertOptions& options, const model::ModelSpec& spec,
                    const TensorGroup& group);
/// What the replacements of all others take in it.
std::uint64_t least_replacement_bytes(const ExpertOptions& options, const model::ModelSpec& spec);

/// Of the router's rows that the smallest possible file does without, as they are planned for.
std::uint64_t droppable_router_bytes(const ExpertOptions& options, const model::ModelSpec& spec);

/// Rows of the router that a layer of so many experts keeps: half as many again as a token goes to,
/// for a choice.
std::size_t least_router_rows(const model::MoeSpec& moe, std::size_t experts);

}  // namespace winnow::compress

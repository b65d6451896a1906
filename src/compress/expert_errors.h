// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How much each expert is used, and what rounding one of its matrices alone does to the output of
// its layer: the facts that PMQ (pmq.h) weighs experts by.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <vector>

#include "base/json.h"
#include "compress/divergence_sweep.h"
#include "compress/group_packer.h"

namespace winnow::compress {

/// Of the experts of one layer, on some text.
struct ExpertUse {
  std::vector<double> frequency;  ///< tokens routed to the expert / tokens
  std::vector<double> weight;     ///< sum of its router weights, as applied / tokens
};

struct ExpertErrors {
  std::map<std::uint32_t, ExpertUse> use;  ///< of each layer that has experts
  /// Of each group of experts, [options][experts]: Frobenius norm over the text of the change of
  /// the layer's output when this matrix of this expert alone is rounded plainly; zeros for an
  /// option that it is stored in.
  std::map<GroupKey, std::vector<std::vector<double>>> norms;
};

/// Runs the text through the layers once, and the experts of a layer once more for each option of
/// their groups: rounding an expert moves neither routes nor other experts' inputs, so all experts
/// are rounded together and their changes of the output told apart. The numbers do not depend on
/// how `text` is cut into batches. states: folder for hidden states, empty: in memory. Holds one
/// group packed, and the outputs of all chosen experts for one batch.
ExpertErrors measure_expert_errors(const PackerContext& context,
                                   const std::vector<TensorGroup>& groups, GroupPacker& packer,
                                   const WindowBatches& text, const std::filesystem::path& states);

Json to_json(const ExpertErrors& errors, const std::vector<TensorGroup>& groups);
/// What `to_json` gave of the same groups. Throws Json::exception for anything else.
ExpertErrors expert_errors_from_json(const Json& json, const std::vector<TensorGroup>& groups);

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What a file says of experts that a run may skip (docs/formats/policy.md): by layer, the ratio of
// router weights below which a given share of the calibration text's expert slots lies.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/metadata.h"
#include "formats/model_file.h"
#include "model/spec.h"

namespace winnow::model {

struct SkipRatios {
  std::vector<float> shares;  ///< rising, above 0 and at most 1
  /// [num_hidden_layers][shares], not falling within a layer, in [0, 1]; 0 for dense layers.
  std::vector<float> ratios;

  /// [num_hidden_layers]: the ratios for this share, by a line between the two nearest; 0 for a
  /// share of 0. Requires 0 <= share <= the last.
  std::vector<float> at(double share) const;
  bool operator==(const SkipRatios&) const = default;
};

/// Nothing where the file has none, as formats other than GGUF never have. Throws Error{kBadData}
/// naming the key: another version, a wrong number of elements, values that are no ratios, that
/// fall, or that a dense layer has.
std::optional<SkipRatios> read_skip_ratios(const formats::ModelFile& file, const ModelSpec& spec);

/// The keys of an output, whose number and size do not depend on the values.
std::vector<std::pair<std::string, formats::Value>> skip_ratio_metadata(const SkipRatios& ratios);

}  // namespace winnow::model

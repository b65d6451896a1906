// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The experts of an output where they vary, and what the output's spec says of them.
#pragma once

#include <vector>

#include "model/exporter.h"

namespace winnow::model {

/// [num_hidden_layers][experts of the output], of dense layers none; empty where experts do not
/// vary.
using ExportExperts = std::vector<std::vector<ExportExpert>>;

/// Those that the options ask for, or else all of the source as they are.
ExportExperts exported_experts(const Checkpoint& source, const ExportOptions& options);

/// The spec of an output of a model with `spec` that has these experts.
ModelSpec spec_with(ModelSpec spec, const ExportExperts& experts);

}  // namespace winnow::model

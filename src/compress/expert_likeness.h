// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Which expert of a layer could do another's work, and what that would change.
#pragma once

#include <vector>

#include "compress/expert_sums.h"
#include "compress/tensor_group.h"
#include "compress/window_stream.h"
#include "engine/layer_runner.h"
#include "model/checkpoint.h"

namespace winnow::compress {

/// For each expert of the layer the other one whose matrices are nearest to its own: least sum over
/// the three matrices of |A - B|^2 / (|A|^2 + |B|^2), on rows spread evenly over each. Ties to the
/// lower number. Needs two experts.
std::vector<ExpertId> nearest_experts(const model::Checkpoint& source, LayerId layer);

/// The matrix of `of`, as it is stored, in the place of that of `expert`.
PackedGroup matrix_in_place(const model::Checkpoint& source, model::Role role, LayerId layer,
                            ExpertId expert, ExpertId of);

/// Sets `nearest` and `squared_differences` of the layer's sums. All experts compute with the
/// matrices of their nearest at once, since no expert's work depends on another's. The loaded
/// layer, on the states of `text`, which stay. Holds the layer's experts once more.
void add_likeness(engine::LayerRunner& runner, const model::Checkpoint& source, LayerId layer,
                  const WindowStream& text, LayerSums& sums, Log& log);

}  // namespace winnow::compress

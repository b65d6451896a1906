// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What one more pass over the text can improve once it is known which experts something stands
// for: swaps of two experts of a layer (layer_swaps.h), and constants that are fitted together
// (joint_constants.h). Both rest on what the experts lose together, which the choice of one expert
// at a time does not see.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "compress/expert_items.h"
#include "compress/mix_problem.h"
#include "compress/window_stream.h"
#include "engine/layer_runner.h"
#include "model/spec.h"

namespace winnow::compress {

/// All borrowed.
struct RefinementInput {
  const model::ModelSpec& spec;
  std::span<const ExpertItem> items;  ///< layer after layer, all experts of each
  std::span<const double> slopes;     ///< [layers]: nats per token and unit of change
  const DamageTable& damages;         ///< of types, as decisions weigh them
  /// [layers][experts][hidden_size]: the best single constants.
  std::span<const std::vector<std::vector<float>>> constants;
  double other_text = 0;  ///< the part of what experts lose that is the same for all of a layer
};

struct Refinement {
  ExpertMix mix;          ///< of the same bytes
  std::size_t swaps = 0;  ///< that made it
  /// [layers][experts]: constants fitted together; empty where the single ones stay.
  std::vector<std::vector<std::vector<float>>> constants;
};

/// Whether there is anything in the mix that it could improve.
bool can_be_refined(std::span<const ExpertItem> items, const ExpertMix& mix);

/// stream: of the calibration text, before layer 0 when the model is at its embedding. Runs the
/// layers up to the last one with anything to improve.
Refinement refine_layers(const RefinementInput& input, const ExpertMix& mix,
                         engine::LayerRunner& runner, WindowStream& stream, Log& log);

/// Bytes of memory that it takes at most, the constants of all layers included.
std::uint64_t refinement_bytes(const model::ModelSpec& spec);

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The KL divergence that each of many changes of the weights causes, all measured in one pass over
// the layers: each changed model is a stream of hidden states of its own from the first layer that
// it changes, and only one layer's weights are in memory.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/log.h"
#include "compress/tensor_group.h"
#include "compress/window_stream.h"
#include "engine/layer_runner.h"
#include "engine/overrides.h"

namespace winnow::compress {

/// Logit rows held at a time, of the unchanged and of one changed model.
inline constexpr std::size_t kSweepLogitRows = 64;

/// What stands for the experts of some layers, one entry for each expert of a layer.
using LayerSubstitutes = std::map<std::uint32_t, std::vector<engine::ExpertSubstitute>>;

/// A changed model: which groups are other than the original's, and how to make them. Called when
/// the group's layer is loaded, once or twice (an embedding that is also the output matrix).
struct WeightVariant {
  std::map<GroupKey, std::function<PackedGroup()>> changes;
  LayerSubstitutes experts;
};

struct SweepMemory {
  /// For the hidden states of all streams; those that do not fit are files in `folder`.
  std::optional<Bytes> states;
  std::filesystem::path folder;
};

/// Mean KL(unchanged || variant) over the scored tokens of `batches`, nats, for each variant; the
/// same for any number of threads. Holds one layer's weights, the changed groups of one layer of
/// one variant, and (1 + variants) x tokens x hidden_size floats of states. Throws as LayerRunner
/// does, and Error{kInterrupted}.
std::vector<double> measure_divergences(engine::LayerRunner& runner, const model::ModelSpec& spec,
                                        const WindowBatches& batches,
                                        std::span<const WeightVariant> variants,
                                        const SweepMemory& memory, Log& log);

}  // namespace winnow::compress

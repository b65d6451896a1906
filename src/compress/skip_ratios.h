// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How far below a token's best expert its others lie on the calibration text, as what a run needs
// to skip a given share of them (NAEE, arXiv:2402.14800; ODP of MC, arXiv:2410.06270).
#pragma once

#include <filesystem>
#include <span>
#include <vector>

#include "base/log.h"
#include "compress/window_stream.h"
#include "engine/layer_runner.h"
#include "model/skip_ratios.h"
#include "model/spec.h"

namespace winnow::compress {

/// For shares of 5 % to 50 %, ratios of 0: as large in a file as the real ones.
model::SkipRatios no_skip_ratios(const model::ModelSpec& spec);

/// The ratio below which floor(share x slots) of a layer's ratios lie, halfway to the next one, or
/// fewer where several are equal. ratios: weight of each choice but the best over that of the best,
/// in any order, reordered. slots: with the best ones.
float skip_ratio(std::span<float> ratios, double share, std::size_t slots);

/// One run of the whole text through the model as it is, one layer at a time, with
/// 4 (top_k - 1) bytes for each token of the text. states: folder for hidden states, empty: in
/// memory. Depends on neither threads nor batches. Throws as LayerRunner does, and
/// Error{kInterrupted}.
model::SkipRatios measure_skip_ratios(engine::LayerRunner& runner, const model::ModelSpec& spec,
                                      const WindowBatches& text,
                                      const std::filesystem::path& states, Log& log);

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// One run of a text through the layers for the moments of all inputs.
#pragma once

#include <filesystem>

#include "base/log.h"
#include "compress/moments.h"
#include "compress/window_stream.h"
#include "engine/layer_runner.h"
#include "model/spec.h"

namespace winnow::compress {

/// Holds one layer's weights. states: folder for hidden states, empty: in memory. Throws as
/// LayerRunner does, and Error{kInterrupted}.
InputMoments collect_moments(engine::LayerRunner& runner, const model::ModelSpec& spec,
                             const WindowBatches& text, const std::filesystem::path& states,
                             Log& log);

}  // namespace winnow::compress

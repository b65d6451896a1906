// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Moments of the inputs of a whole model, layer by layer.
#pragma once

#include <filesystem>

#include "base/log.h"
#include "compress/encoder_kind.h"
#include "compress/moments.h"
#include "engine/layer_runner.h"
#include "metrics/text_data.h"
#include "model/spec.h"

namespace winnow::compress {

/// Moments of the text for encoders of a kind: for kStock without router weights and of layers
/// alone, as importance matrices are. Hidden states are kept in `folder`, in memory when it is
/// empty. Throws as running and writing do, and Error{kInterrupted}.
InputMoments collect_moments(engine::LayerRunner& runner, const model::ModelSpec& spec,
                             const metrics::WindowSet& text, const std::filesystem::path& folder,
                             EncoderKind encoders, Log& log);

}  // namespace winnow::compress

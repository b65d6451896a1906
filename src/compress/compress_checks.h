// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What the compressor refuses, or warns of, before any work.
#pragma once

#include <span>

#include "base/log.h"
#include "compress/compressor.h"

namespace winnow::compress {

/// Throws Error{kUsage} for options that do not go together, or that this model or the lack of text
/// does not allow.
void check_compress_options(const model::Checkpoint& source, const CompressOptions& options,
                            bool has_text, bool uses_hessians);

/// Throws Error{kUsage} where ratios for skipping experts are asked for and cannot be had.
void check_skip_ratios(const model::Checkpoint& source, const CompressOptions& options,
                       bool has_text);

/// Says which codecs these encoders cannot make, where there are any.
void name_codecs_left_out(EncoderKind encoders, Log& log);

/// Once, where some group is stored in a quantised type.
void warn_of_quantised_source(const model::Checkpoint& source, std::span<const TensorGroup> groups,
                              Log& log);

}  // namespace winnow::compress

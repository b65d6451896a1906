// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A GGUF file of a given shape with random weights. Only for measuring speed: it says nothing, and
// its router spreads tokens evenly, which is the worst case for any cache of experts.
#pragma once

#include <cstdint>
#include <filesystem>

#include "base/log.h"
#include "model/spec.h"
#include "os/thread_pool.h"
#include "quant/codec.h"

namespace winnow::tools {

struct RandomModelOptions {
  const quant::Codec* codec = nullptr;         ///< of all matrices but the output matrix
  const quant::Codec* output_codec = nullptr;  ///< null: default_output_codec(*codec)
  std::uint64_t seed = 0;
  std::size_t pool_rows = 2048;  ///< distinct rows that each kind of matrix is drawn from
};

/// Q6_K below 6 bits a weight, as files of these types usually have it; else the type itself.
const quant::Codec& default_output_codec(const quant::Codec& codec);

/// Writes the file; its bytes depend on spec and options only. Matrices keep the size of their
/// input on average, additions to the residual stream are smaller, norms lie around 1: activations
/// stay finite however many layers there are. Router and norms are F32. Rows whose length a type's
/// blocks do not divide get its fallback. Throws Error{kSystem} when the disk refuses.
void write_random_model(const std::filesystem::path& path, const model::ModelSpec& spec,
                        const RandomModelOptions& options, os::ThreadPool& pool, Log& log);

}  // namespace winnow::tools

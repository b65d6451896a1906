// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A real model with wider experts: inner channels whose weights are zero. Routing and outputs stay
// those of the model, so that caches of experts meet real routing at a real size.
#pragma once

#include <cstdint>
#include <filesystem>

#include "base/log.h"
#include "model/checkpoint.h"
#include "os/thread_pool.h"
#include "quant/codec.h"

namespace winnow::tools {

struct InflateOptions {
  /// Inner width of every expert afterwards. 8192 makes an expert of grain 3.5 MB in Q4_0.
  std::uint32_t width = 8192;
  const quant::Codec* codec = nullptr;  ///< of all matrices; null: each keeps its own
};

/// Writes the wider model as GGUF. For speed only: the zeros make tests of quality meaningless.
/// Throws Error{kUsage} when the model has no experts or they are as wide already, Error{kBadData}
/// as reading the model does, Error{kSystem} when the disk refuses.
void write_inflated_model(const std::filesystem::path& path, const model::Checkpoint& source,
                          const InflateOptions& options, os::ThreadPool& pool, Log& log);

}  // namespace winnow::tools

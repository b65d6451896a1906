// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// One pass of a text through a model, layer by layer, that sums every registered statistic.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "base/log.h"
#include "base/units.h"
#include "compress/profile_plan.h"
#include "compress/statistics_file.h"
#include "engine/engine.h"
#include "metrics/text_data.h"
#include "model/checkpoint.h"

namespace winnow::compress {

struct ProfileOptions {
  engine::EngineOptions engine;
  std::size_t context = 512;  ///< recorded; the windows have been cut already
  /// Of the whole process: one layer's weights, its sums, a batch, and the hidden states of all
  /// tokens where they fit; otherwise those are files beside the output. Nothing: no limit.
  std::optional<Bytes> max_memory;
  SequenceRange sequences;   ///< of each domain; not empty in all of them
  bool keep_states = false;  ///< the hidden states of all layers stay in <OUT>.states/
  bool restart = false;      ///< forget an unfinished run
  std::string version;       ///< of the program
};

struct ProfileResult {
  std::uint64_t tokens = 0;  ///< run through the model, held-out ones included
  std::uint64_t held_out_tokens = 0;
  std::uint32_t resumed_layers = 0;  ///< that an earlier run had finished
  bool states_on_disk = false;
};

/// Writes the statistics of `text` to `out` (docs/formats/statistics.md). An unfinished run's work
/// is found in <OUT>.partial/ and gone on with; the bytes are those of an undisturbed run, for any
/// number of threads and any limit of memory.
/// Throws Error{kBudget} with the least possible --max-memory, Error{kUsage} when the unfinished
/// run is another one, Error{kBadData} with the layer when weights give values that are not finite,
/// Error{kInterrupted}, and what reading and writing throw. Nothing appears under `out` before the
/// file is whole.
ProfileResult profile_model(const model::Checkpoint& checkpoint, const metrics::WindowSet& text,
                            const std::filesystem::path& out, const ProfileOptions& options,
                            Log& log);

}  // namespace winnow::compress

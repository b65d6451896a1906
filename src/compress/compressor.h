// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Compresses a model to a byte budget: measures which inputs matter, what each way of storing each
// tensor costs, and spends the bytes where they save the most divergence.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/log.h"
#include "compress/tensor_group.h"
#include "engine/engine.h"
#include "formats/metadata.h"
#include "metrics/evaluation.h"
#include "metrics/text_data.h"
#include "model/checkpoint.h"

namespace winnow::compress {

struct CompressOptions {
  /// Exactly one of the two. Bytes of the output file, metadata included:
  std::optional<Bytes> file_budget;
  /// All tensor bytes x 8 / all parameters, embeddings included:
  std::optional<double> bits_per_weight;
  engine::EngineOptions engine;
  /// Held-out tokens on which divergence is measured; bounded by a quarter of the text.
  std::uint64_t probe_tokens = 4096;
  /// Provenance for the output's metadata.
  std::vector<std::pair<std::string, formats::Value>> metadata;
};

struct CompressResult {
  std::vector<TensorGroup> groups;
  std::uint64_t num_parameters = 0;
  Bytes file_bytes;
  Bytes tensor_bytes;
  std::uint64_t calibration_tokens = 0;
  std::uint64_t probe_tokens = 0;
  double predicted_kl = 0;  ///< sum over groups; in nats per token only with text
  /// The written file against the original on the held-out text; only with text.
  std::optional<metrics::Evaluation> measured;
};

/// Writes `out` (GGUF). `windows` may be null: then the weights alone decide.
/// Per tensor group (role and layer), each codec's error is measured with the second moments of
/// the inputs; a group's error is turned into nats by running the model with that group alone in
/// its smallest codec; an exact knapsack picks one codec per group.
/// A matrix is never given more bits than it is stored with; stored as it is, it is copied. Held
/// out is every n-th window; a single window serves for both.
/// Throws Error{kBudget} with the smallest possible size when the budget cannot be met, and
/// Error{kSystem} when `out` cannot be created, both before measuring; else what reading, running
/// and writing throw. Nothing appears under `out` before the file is whole. Deterministic; the
/// thread count changes nothing.
CompressResult compress_model(const model::Checkpoint& source, const std::filesystem::path& out,
                              const metrics::WindowSet* windows, const CompressOptions& options,
                              Log& log);

/// Every option considered and taken, predicted and measured damage, bytes.
Json to_json(const CompressResult& result);

}  // namespace winnow::compress

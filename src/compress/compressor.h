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
#include "compress/allocation.h"
#include "compress/correction.h"
#include "compress/encoder_kind.h"
#include "compress/expert_allocator.h"
#include "compress/hessian_quantizer.h"
#include "compress/layer_hessians.h"
#include "compress/moments.h"
#include "compress/tensor_group.h"
#include "compress/transform_choice.h"
#include "engine/engine.h"
#include "formats/metadata.h"
#include "metrics/evaluation.h"
#include "metrics/text_data.h"
#include "model/checkpoint.h"

namespace winnow::compress {

struct CompressOptions {
  /// Exactly one of the three. Bytes of the output file, metadata included:
  std::optional<Bytes> file_budget;
  /// All tensor bytes x 8 / all parameters, embeddings included:
  std::optional<double> bits_per_weight;
  /// Nats per token, > 0: the smallest file whose divergence on the held-out text is at most that.
  /// Needs text, and the allocation by slopes.
  std::optional<double> tolerance;
  engine::EngineOptions engine;
  /// How matrices are quantised where there is text.
  HessianScope hessians = HessianScope::kExpert;
  HessianQuantizerOptions quantizer;
  /// kStock: by llama.cpp's encoders whether there is text or not; no Hessians, no transforms.
  EncoderKind encoders = EncoderKind::kOwn;
  /// Corrections beside the quantised matrices, for which there has to be text, and Hessians.
  CorrectionOptions corrections;
  /// Exact changes of the layers to try before. Those of norms and biases (`changes_vectors`) go
  /// with neither `sequential` nor `tolerance` nor allocations that measure mixes: these run
  /// matrices with the original ones.
  TransformWishes transforms;
  /// Hessians of the inputs that the quantised layers before give, not the original ones.
  bool sequential = false;
  AllocationOptions allocation;
  /// With any, every expert is an item of its own, and the output has the extended layout. Needs
  /// text and Hessians; goes with the allocation by slopes alone, with neither corrections nor
  /// transforms.
  ExpertOptions experts;
  /// Also writes which experts a run may skip (see skip_ratios.h). Needs text.
  bool skip_ratios = false;
  /// Moments that were collected before (borrowed; may be null): with them and no text, matrices
  /// are quantised by their diagonal.
  const InputMoments* moments = nullptr;
  /// Text for measuring divergence (borrowed); null: a part of the calibration text.
  const metrics::WindowSet* probe = nullptr;
  /// Tokens on which divergence is measured, but at most a quarter of the calibration text.
  std::uint64_t probe_tokens = 4096;
  /// What the written file is measured against (borrowed); null: the source.
  const model::Checkpoint* reference = nullptr;
  /// Of the whole process; nothing: no limit.
  std::optional<Bytes> max_memory;
  bool restart = false;  ///< forget an unfinished run
  /// <OUT>.partial/ stays when the output is whole, for another budget of the same run.
  bool keep_measurements = false;
  /// Provenance for the output's metadata.
  std::vector<std::pair<std::string, formats::Value>> metadata;
  /// What decides the bytes besides this structure, for recognising an unfinished run: program
  /// version, method.
  Json run;
};

// NOLINTNEXTLINE(bugprone-exception-escape): moving Json asserts what a sound value always holds
struct CompressResult {
  std::vector<TensorGroup> groups;
  std::uint64_t num_parameters = 0;
  Bytes file_bytes;
  Bytes tensor_bytes;
  std::uint64_t calibration_tokens = 0;
  std::uint64_t probe_tokens = 0;
  bool measures_options = true;  ///< errors of all options are known
  bool predicts_kl = false;      ///< whether there was text to measure divergence on
  std::string allocation;        ///< name of the way that was chosen by
  Json allocation_record;        ///< what the choice rests on (`AllocationResult::record`)
  double predicted_kl = 0;       ///< sum over all times `together`; nats per token with such text
  double together = 1;           ///< see MixFit
  Json fit_record;               ///< what the weights of layers were fitted to
  Json tolerance_record;         ///< with `CompressOptions::tolerance`: what was tried
  /// With `CompressOptions::experts`: what was considered in the place of each expert, and chosen.
  Json expert_record;
  Json counts_record;  ///< see portable_counts.h
  /// The written file against the original on the held-out text; only with text, and without a
  /// limit of memory, since both models are loaded.
  std::optional<metrics::Evaluation> measured;
  /// With a limit, and no other reference: the divergence alone, layer by layer, nats per token.
  std::optional<double> measured_kl;
};

/// Writes `out` (GGUF). `windows` is the calibration text; without it `options.moments` decide
/// which inputs matter, without those the weights alone. Layer by layer: a model may be larger than
/// memory. Per tensor group (role and layer), each codec's error is measured on what its matrices
/// read, and turned into nats by running the model with that group alone rounded; an exact knapsack
/// picks one codec per group, and the groups are quantised in it. A matrix is never given more bits
/// than it is stored with; stored as it is, it is copied. Finished work is kept in <OUT>.partial/,
/// where a run that was broken off goes on: the bytes are those of an undisturbed run. Throws
/// Error{kBudget} with the smallest possible size when the budget (or the limit of memory) cannot
/// be met, Error{kUsage} for an allocation that this model or text does not allow, and for
/// corrections, a tolerance or options of experts without text, Error{kBadData} for a source that
/// has corrections, and Error{kSystem} when `out` cannot be created, all before measuring;
/// Error{kUsage} when the unfinished run is another one; else what reading, running and writing
/// throw. Nothing appears under `out` before the file is whole. Deterministic; the thread count
/// changes nothing.
CompressResult compress_model(const model::Checkpoint& source, const std::filesystem::path& out,
                              const metrics::WindowSet* windows, const CompressOptions& options,
                              Log& log);

/// Every option considered and taken, predicted and measured damage, bytes.
Json to_json(const CompressResult& result);

}  // namespace winnow::compress

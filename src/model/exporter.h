// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Writes a checkpoint as a new file: any readable format to GGUF or safetensors, each tensor in the
// codec that the caller chooses. Streams: holds a few chunks of rows, never a layer.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/log.h"
#include "formats/model_file.h"
#include "model/checkpoint.h"
#include "model/extended_layout.h"
#include "os/thread_pool.h"
#include "quant/encode_row.h"

namespace winnow::model {

enum class OutputFormat { kGguf, kSafetensors };

/// One tensor of the output: for GGUF all experts of a layer, stacked, unless they vary.
struct ExportTensor {
  formats::PlannedTensor planned;
  Role role;
  LayerId layer;
  std::uint32_t first_part = 0;  ///< of the source, expert it begins with; 0 for roles without
  std::uint32_t parts = 1;       ///< experts it holds
  std::optional<LowRankSide> factor = std::nullopt;  ///< of the correction of `role`'s matrix
  /// Of a matrix of an expert that is stored apart: the expert's number in the output's layer.
  std::optional<ExpertId> apart = std::nullopt;
};

/// An expert of an output whose experts vary.
struct ExportExpert {
  ExpertId source{};  ///< whose row of the router it has, and whose matrices, unless it is shared
  ExpertShape shape;  ///< `shared_with` is a place among the experts of the output's layer
};

/// How to write each tensor.
struct ExportOptions {
  OutputFormat format = OutputFormat::kGguf;
  /// Codec wanted for a matrix; the rows' length may still force its fallback. Vectors and routers
  /// are not asked for: they become F32 in GGUF. In safetensors they keep their type, but F32
  /// values from a GGUF file become BF16 or F16 where the token embedding is written so and every
  /// one of them has an exact such form: GGUF had only widened them.
  std::function<const quant::Codec&(Role, LayerId)> codec;
  /// Importance per column of a matrix for the encoder (mean square of that input), or empty.
  std::function<std::span<const float>(Role, LayerId, ExpertId)> importance;
  /// Where packed rows of a matrix come from when the exporter is not to make them: fills `out`
  /// with rows from `first` on, as many as it has bytes for, and returns true. False, or empty: the
  /// exporter copies what is stored in the wanted codec already, and encodes the rest. Corrections
  /// of the source are added to its matrices. Experts of another width than the source's have to
  /// come from here.
  std::function<bool(Role, LayerId, ExpertId, std::size_t first, std::span<std::byte> out)> rows;
  /// Changes the values [rows, cols] of a vector or router before they are written; may be empty.
  std::function<void(Role, LayerId, std::span<float> values)> edit;
  /// [num_hidden_layers][experts of the output], of dense layers none: with it the file has the
  /// extended layout, which is GGUF's alone. Empty: the experts are those of the source.
  std::vector<std::vector<ExportExpert>> experts;
  /// Codec wanted for a matrix of one expert of the source, where experts vary. Empty: `codec`.
  std::function<const quant::Codec&(Role, LayerId, ExpertId)> expert_codec;
  /// Fills in the vector [hidden_size] that stands for an expert of the source. Needed for
  /// constants that the source does not have.
  std::function<void(LayerId, ExpertId, std::span<float> values)> constant;
  /// Rank of the correction to write beside a matrix, 0: none. Empty: none at all. With any, the
  /// file has the extended layout, which is GGUF's alone.
  std::function<std::size_t(Role, LayerId)> correction_rank;
  /// Fills `out` with a whole factor of one matrix, row-major F16, rows in the order of the source.
  std::function<void(Role, LayerId, ExpertId, LowRankSide, std::span<std::byte> out)> factor;
  /// The codec most of the weights have, for `general.file_type` and config.json's `torch_dtype`.
  const quant::Codec* nominal_codec = nullptr;
  /// Further metadata for GGUF: provenance.
  std::vector<std::pair<std::string, formats::Value>> metadata;
};

/// What will be written, in order. Reads vectors and routers when it has to know their values.
/// Throws Error{kUsage} when the format cannot hold a codec, Error{kBadData} for tensors that no
/// role of the architecture covers (they would be lost), and as reading does.
std::vector<ExportTensor> plan_export(const Checkpoint& source, const ExportOptions& options);

/// Bytes of the GGUF file that `export_model` would write.
Bytes planned_file_size(const Checkpoint& source, const ExportOptions& options);

/// Payload bytes of a plan (alignment padding not counted).
Bytes planned_bytes(std::span<const ExportTensor> plan);

/// Reads, decodes, encodes and writes everything; the result appears under `path` only when it is
/// whole. The bytes depend on neither the number of threads nor chance.
/// Throws as `plan_export`, Error{kBadData} for damaged weights, Error{kSystem} when the disk
/// refuses, Error{kInterrupted}.
void export_model(const Checkpoint& source, const std::filesystem::path& path,
                  const ExportOptions& options, os::ThreadPool& pool, Log& log);

/// Encodes `rows` rows of `cols` weights in parallel; `out` has rows * row bytes. `encode` stands
/// for the codec's own encoder where it is not null.
void encode_rows(const quant::Codec& codec, std::span<const float> weights, std::size_t rows,
                 std::size_t cols, std::span<const float> importance, std::span<std::byte> out,
                 os::ThreadPool& pool, quant::EncodeRow encode = nullptr);

}  // namespace winnow::model

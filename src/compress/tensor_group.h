// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The unit of the allocation: matrices that are stored in one codec. All of one role in one layer,
// or, where experts have types of their own, the one of an expert.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "base/log.h"
#include "base/units.h"
#include "compress/encoder_kind.h"
#include "compress/moments.h"
#include "model/checkpoint.h"
#include "os/thread_pool.h"
#include "quant/corrected_matrix.h"

namespace winnow::compress {

/// One way to store a group, and what is known of it.
struct GroupOption {
  const quant::Codec* codec = nullptr;
  std::size_t rank = 0;  ///< of a correction beside each matrix (correction.h); 0: none
  Bytes payload;         ///< of the packed weights, and of the correction
  Bytes bytes;           ///< in the file, padding included
  double error = 0;      ///< squared output error per calibration token (see `pack_group`)
  /// [parts] of `error`, what each expert's matrix adds; empty where nobody asks for them. Whoever
  /// measures errors fills in as many as there are.
  std::vector<double> part_errors;
  /// Nats per token that it is expected to add; without text the group's share of all weights times
  /// `error`, which has no unit.
  double predicted_kl = 0;
};

/// The divergence that a known error of one group causes, all others as they are.
struct NoisePoint {
  const quant::Codec* codec = nullptr;  ///< whose rounding errors are the noise
  double error = 0;                     ///< in the unit of `GroupOption::error`
  double kl = 0;                        ///< measured, nats per token
};

/// What is left of an expert that loses inner channels (narrowing.h).
struct ChannelChoice {
  std::vector<std::uint32_t> kept;  ///< rising
  double lost = 0;  ///< share of the expert's squared output by which the output changes
  /// Squares of the compensated columns of its down projection, as a share of those of the whole
  /// one: what an error in the rows of gate and up that stay does, beside what it does in all rows.
  double carried = 1;
  /// As `lost`, on text that uses all inner channels alike.
  double lost_elsewhere = 0;
};

struct TensorGroup {
  model::Role role = model::Role::kTokenEmbedding;
  LayerId layer{};
  std::size_t parts = 1;  ///< matrices: experts, otherwise 1
  /// Whose matrix it is, in a layer whose experts are groups of their own; nothing: everyone's.
  std::optional<ExpertId> only = std::nullopt;
  std::size_t rows = 0;  ///< out_features of each
  std::size_t cols = 0;  ///< in_features
  std::uint64_t weights = 0;
  double kl_per_error = 0;  ///< measured slope: nats per unit of `GroupOption::error`; with text
  std::vector<NoisePoint> noise;  ///< by falling bits, so by rising error; with text
  std::vector<GroupOption> options;
  std::size_t chosen = 0;  ///< index into options
  bool left_out = false;   ///< something else stands for its expert
  /// Inner channels that are left of each of its experts; 0: all. Narrowed forms of a group are
  /// groups beside it, left out unless they are chosen.
  std::uint32_t width = 0;
  /// [parts] of a narrowed group, once it is measured. Its three matrices share them.
  std::vector<std::shared_ptr<const ChannelChoice>> channels;

  /// "expert_down_proj of layer 3", "expert_down_proj of layer 3, expert 5",
  /// "expert_down_proj of layer 3, 96 channels, expert 5"
  std::string name() const;
  /// Name of its work files, without an ending: "expert_down_proj-00003-00005-w00096".
  std::string file_stem() const;
  /// The expert that a matrix of the group is of; 0 for roles without experts.
  ExpertId expert(std::size_t part) const {
    return only ? *only : ExpertId{static_cast<std::uint32_t>(part)};
  }
  bool has(ExpertId of) const { return !only || *only == of; }
  /// Which of the group's matrices is the one of an expert that it has.
  std::size_t part_of(ExpertId of) const { return only ? 0 : index(of); }
};

/// What tells groups apart: role, layer (0 for roles without), and 1 + the one expert, or 0. Forms
/// of different width have the same: a model has one of them.
using GroupKey = std::tuple<model::Role, std::uint32_t, std::uint32_t>;
inline GroupKey key_of(const TensorGroup& group) {
  return {group.role, index(group.layer), group.only ? 1 + index(*group.only) : 0};
}

/// A group packed in memory, all experts, to be run in the place of the original.
struct PackedGroup {
  std::vector<std::byte> bytes;
  std::vector<quant::CorrectedMatrix> parts;    ///< into `bytes`
  std::optional<ExpertId> only = std::nullopt;  ///< as the group's
  double error = 0;

  PackedGroup() = default;
  PackedGroup(PackedGroup&&) = default;  // `parts` of a copy would point into the original
  PackedGroup& operator=(PackedGroup&&) = default;

  /// `parts` as the engine takes them in the place of a layer's: one for each of its experts, or
  /// one; without a codec where the group has none.
  std::vector<quant::CorrectedMatrix> in_layer(const model::ModelSpec& spec) const;
};

/// Every group of matrices that may be quantised, in file order.
std::vector<TensorGroup> list_groups(const model::Checkpoint& checkpoint);

/// One group for each expert of a group whose `part_errors` are known, in their order. An option
/// has of the group's predicted damage the share that the expert has of its error.
std::vector<TensorGroup> divide_group(const TensorGroup& group);

/// Encodes all matrices of a group with importances from `moments` (null: all columns equal) and
/// sums the error: over matrices, rows and columns, input square sum x weight error squared, per
/// calibration token; where the moments say nothing of the group's inputs, as if they were ones.
/// Without moments it is the error relative to the squared norm of the weights.
/// Holds the packed group and 16 MiB of decoded weights. The codec has an encoder of `kind`. Throws
/// as Checkpoint::read_floats, Error{kBadData} when weights are too large for the codec's scales,
/// and Error{kInterrupted}.
PackedGroup pack_group(const model::Checkpoint& checkpoint, const TensorGroup& group,
                       const quant::Codec& codec, const InputMoments* moments, os::ThreadPool& pool,
                       Log& log, EncoderKind kind = EncoderKind::kOwn);

/// Whether the file holds every matrix of the group in this codec, so that packing changes nothing;
/// false for narrowed groups.
bool is_stored_as(const model::Checkpoint& checkpoint, const TensorGroup& group,
                  const quant::Codec& codec);

/// Bytes of the group's matrices in a codec whose blocks divide their rows.
Bytes packed_bytes(const TensorGroup& group, const quant::Codec& codec);

/// The codecs that may hold the group, by rising size: the one that it is stored in, and of all
/// that this program has (or their fallbacks, where rows do not divide into blocks) those with
/// fewer bits. More bits than the stored ones would buy nothing. Never empty. Rows of a narrowed
/// group that do not divide into blocks of the stored one have its fallback.
std::vector<const quant::Codec*> candidate_codecs(const model::Checkpoint& checkpoint,
                                                  const TensorGroup& group);

}  // namespace winnow::compress

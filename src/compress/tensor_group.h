// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The unit of the allocation: all matrices of one role in one layer, stored in one codec.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/units.h"
#include "compress/moments.h"
#include "model/checkpoint.h"
#include "os/thread_pool.h"
#include "quant/codec.h"

namespace winnow::compress {

/// One way to store a group, and what is known of it.
struct GroupOption {
  const quant::Codec* codec = nullptr;
  Bytes payload;            ///< of the packed weights
  Bytes bytes;              ///< in the file, padding included
  double error = 0;         ///< squared output error per calibration token (see `pack_group`)
  double predicted_kl = 0;  ///< nats per token that it is expected to add
};

struct TensorGroup {
  model::Role role = model::Role::kTokenEmbedding;
  LayerId layer{};
  std::uint64_t weights = 0;
  double kl_per_error = 0;  ///< measured slope: nats per unit of `GroupOption::error`
  std::vector<GroupOption> options;
  std::size_t chosen = 0;  ///< index into options

  /// "expert_down_proj of layer 3"
  std::string name() const;
};

/// A group packed in memory, all experts, to be run in the place of the original.
struct PackedGroup {
  std::vector<std::byte> bytes;
  std::vector<quant::PackedMatrix> parts;  ///< into `bytes`
  double error = 0;
};

/// Every group of matrices that may be quantised, in file order.
std::vector<TensorGroup> list_groups(const model::Checkpoint& checkpoint);

/// Encodes all matrices of a group with importances from `moments` (null: all columns equal) and
/// sums the error: over matrices, rows and columns, input square sum x weight error squared, per
/// calibration token. Without moments it is the error relative to the squared norm of the weights.
PackedGroup pack_group(const model::Checkpoint& checkpoint, const TensorGroup& group,
                       const quant::Codec& codec, const InputMoments* moments,
                       os::ThreadPool& pool);

/// The codecs that may hold the group, by rising size: all that this program has, or what they
/// fall back to where rows do not divide into their blocks.
std::vector<const quant::Codec*> candidate_codecs(const model::Checkpoint& checkpoint,
                                                  const TensorGroup& group);

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The dense weights of a model in memory, and the catalogue of its experts on disk.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "base/log.h"
#include "engine/overrides.h"
#include "experts/store.h"
#include "model/checkpoint.h"
#include "os/aligned_buffer.h"
#include "os/mapped_files.h"
#include "quant/corrected_matrix.h"

namespace winnow::engine {

/// Packed matrices and F32 vectors by role; everything but the routed experts. Owns what it has
/// read.
class DenseWeights {
 public:
  /// Matrices lie where `mapped` (borrowed; null: none) has their file and are read otherwise;
  /// vectors are read and converted. Throws Error{kBadData, kSystem} as reading does; vectors and
  /// corrections with NaN or infinity are refused with the tensor's name.
  enum class Traces {
    kPageCache,  ///< the system may keep what was read
    kNone,       ///< it keeps nothing, and a few MiB meanwhile
  };
  DenseWeights(const model::Checkpoint& checkpoint, const os::MappedFiles* mapped, Log& log,
               Traces traces = Traces::kPageCache);

  using Wanted = std::function<bool(model::Role, LayerId)>;
  /// Only those of the model that are `wanted`.
  DenseWeights(const model::Checkpoint& checkpoint, const os::MappedFiles* mapped, Log& log,
               const Wanted& wanted, Traces traces = Traces::kPageCache);

  /// A matrix that the model has, or what stands in for it; `layer` is ignored for roles without
  /// layers. With tied embeddings kOutput is the embedding.
  const quant::CorrectedMatrix& matrix(const WeightOverrides& overrides, model::Role role,
                                       LayerId layer = {}) const;
  /// A vector (norm weight, bias); empty when the model has none.
  std::span<const float> vector(model::Role role, LayerId layer = {}) const;
  Bytes memory() const { return {buffer_.size() + mapped_}; }
  /// What all dense weights of a checkpoint take when none are mapped, vectors included, and the
  /// largest scratch area that any of their matrices asks for; without reading them.
  struct Sizes {
    Bytes memory;
    std::size_t scratch = 0;
  };
  static Sizes sizes(const model::Checkpoint& checkpoint);
  /// The largest scratch area that any dense matrix asks for.
  std::size_t scratch_bytes() const;

 private:
  struct Slot {
    quant::CorrectedMatrix matrix;
    std::vector<float> values;
  };
  std::size_t slot(model::Role role, LayerId layer) const;

  bool tied_ = false;
  std::vector<Slot> slots_;  // [layer * kNumRoles + role]
  os::AlignedBuffer buffer_;
  std::uint64_t mapped_ = 0;
};

/// Byte ranges of all routed experts of the checkpoint, whose files the catalogue points to.
/// Throws Error{kBadData} with the tensor's name for corrections with NaN or infinity.
experts::ExpertCatalogue catalogue_experts(const model::Checkpoint& checkpoint);
/// Of one layer; those of the others are left out.
experts::ExpertCatalogue catalogue_experts(const model::Checkpoint& checkpoint, LayerId layer);
/// The largest scratch area that any expert's matrix asks for.
std::size_t scratch_bytes(const experts::ExpertCatalogue& catalogue);

}  // namespace winnow::engine

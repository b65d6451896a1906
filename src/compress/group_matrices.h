// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The matrices of groups as they are to be quantised: after the exact changes of their layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "compress/layer_transforms.h"
#include "compress/row_sample.h"
#include "compress/tensor_group.h"
#include "model/checkpoint.h"
#include "tensor/matrix.h"

namespace winnow::compress {

class GroupMatrices {
 public:
  /// Both borrowed.
  GroupMatrices(const model::Checkpoint& source, LayerTransforms& transforms)
      : source_(source), transforms_(transforms) {}

  /// At the source's width, also for a narrowed group.
  tensor::Matrix<float> whole(const TensorGroup& group, ExpertId expert);
  /// The same, some rows of it.
  tensor::Matrix<float> sampled(const TensorGroup& group, ExpertId expert, const RowSample& sample);
  /// The rows of the channels that a narrowed gate or up projection keeps.
  tensor::Matrix<float> kept_rows(const TensorGroup& group, ExpertId expert);

  /// Whether such a projection is in this codec already, so that its rows are copied.
  bool copies_rows(const TensorGroup& group, const quant::Codec& codec) const;
  /// Then those from `first` on, as they are stored, as many as `out` has bytes for.
  void copy_rows(const TensorGroup& group, std::size_t first, std::span<std::byte> out) const;
  /// All of them. group: of one expert.
  PackedGroup copied(const TensorGroup& group) const;
  /// All of the group's matrices as the source has them; not of a narrowed group.
  PackedGroup stored(const TensorGroup& group) const;

 private:
  const model::Checkpoint& source_;
  LayerTransforms& transforms_;
};

}  // namespace winnow::compress

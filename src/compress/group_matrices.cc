// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/group_matrices.h"

#include <algorithm>

#include "base/error.h"

namespace winnow::compress {

tensor::Matrix<float> GroupMatrices::whole(const TensorGroup& group, ExpertId expert) {
  const model::TensorRef ref = source_.at(group.role, group.layer, expert);
  tensor::Matrix<float> weights(ref.rows, ref.cols);
  source_.read_floats(ref, 0, ref.rows, weights.flat());
  if (transforms_.changes(group)) {
    transforms_.of(group.layer).apply(group.role, expert, weights.view());
  }
  return weights;
}

tensor::Matrix<float> GroupMatrices::sampled(const TensorGroup& group, ExpertId expert,
                                             const RowSample& sample) {
  const model::TensorRef ref = source_.at(group.role, group.layer, expert);
  tensor::Matrix<float> all;
  if (transforms_.changes(group)) all = whole(group, expert);
  tensor::Matrix<float> rows(sample.rows, ref.cols);
  std::size_t next = 0;
  for (std::size_t r = 0; r < ref.rows; ++r) {
    if (!RowSample::has(r, sample.rows, ref.rows)) continue;
    const auto row = rows.row(next++);
    if (all.rows() != 0) {
      std::copy_n(all.row(r).data(), ref.cols, row.data());
    } else {
      source_.read_floats(ref, r, 1, row);
    }
  }
  WINNOW_CHECK(next == sample.rows);
  return rows;
}

tensor::Matrix<float> GroupMatrices::kept_rows(const TensorGroup& group, ExpertId expert) {
  const tensor::Matrix<float> all = whole(group, expert);
  const ChannelChoice& channels = *group.channels[group.part_of(expert)];
  tensor::Matrix<float> rows(channels.kept.size(), all.cols());
  for (std::size_t i = 0; i < channels.kept.size(); ++i) {
    std::copy_n(all.row(channels.kept[i]).data(), all.cols(), rows.row(i).data());
  }
  return rows;
}

bool GroupMatrices::copies_rows(const TensorGroup& group, const quant::Codec& codec) const {
  return group.width != 0 && group.role != model::Role::kExpertDownProj &&
         &source_.at(group.role, group.layer, group.expert(0)).codec() == &codec;
}

void GroupMatrices::copy_rows(const TensorGroup& group, std::size_t first,
                              std::span<std::byte> out) const {
  const model::TensorRef ref = source_.at(group.role, group.layer, group.expert(0));
  const quant::Codec& codec = ref.codec();
  const std::size_t row_bytes = ref.cols / codec.block_size * codec.block_bytes;
  for (std::size_t i = 0; i < out.size() / row_bytes; ++i) {
    source_.read_rows(ref, group.channels.front()->kept[first + i], 1,
                      out.subspan(i * row_bytes, row_bytes));
  }
}

PackedGroup GroupMatrices::copied(const TensorGroup& group) const {
  const quant::Codec& codec = source_.at(group.role, group.layer, group.expert(0)).codec();
  PackedGroup packed;
  packed.only = group.only;
  packed.bytes.resize(packed_bytes(group, codec).value);
  copy_rows(group, 0, packed.bytes);
  packed.parts.emplace_back(&codec, packed.bytes.data(), group.rows, group.cols);
  return packed;
}

PackedGroup GroupMatrices::stored(const TensorGroup& group) const {
  const quant::Codec& codec = source_.at(group.role, group.layer, group.expert(0)).codec();
  PackedGroup packed;
  packed.only = group.only;
  packed.bytes.resize(packed_bytes(group, codec).value);
  const std::size_t part_bytes = packed.bytes.size() / group.parts;
  for (std::size_t part = 0; part < group.parts; ++part) {
    const model::TensorRef ref = source_.at(group.role, group.layer, group.expert(part));
    const std::span<std::byte> bytes =
        std::span(packed.bytes).subspan(part * part_bytes, part_bytes);
    source_.read_rows(ref, 0, ref.rows, bytes);
    packed.parts.emplace_back(&codec, bytes.data(), group.rows, group.cols);
  }
  return packed;
}

}  // namespace winnow::compress

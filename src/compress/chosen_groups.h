// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The output as the exporter asks for it, when every group has its choice.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "compress/expert_allocator.h"
#include "compress/group_packer.h"
#include "compress/tensor_group.h"
#include "model/exporter.h"

namespace winnow::compress {

/// All borrowed.
struct ChosenGroups {
  const model::Checkpoint& source;
  const std::vector<TensorGroup>& groups;
  /// Packs the chosen; null: sizes alone are asked for.
  GroupPacker* packer = nullptr;
  /// What stands for experts; null: all are there.
  const ExpertAllocator* experts = nullptr;
  const ExpertMix* expert_mix = nullptr;
};

/// The chosen form of a group as the packer takes it.
PackOrder order_of(const TensorGroup& group);

/// Options that refer to what `chosen` refers to, and to its groups as they are when asked. Without
/// metadata. Where experts are groups of their own the experts vary.
model::ExportOptions export_options(const ChosenGroups& chosen);

/// One group for each expert in the place of the groups that have matrices of experts.
std::vector<TensorGroup> divide_experts(const std::vector<TensorGroup>& groups);

/// Sets `chosen`, and `left_out` of experts' groups: what stands for whole matrices, and narrowed
/// forms that are not chosen.
void apply_mix(const ExpertMix& mix, std::span<const ExpertItem> items,
               std::vector<TensorGroup>& groups);

/// Bytes of an option. pads: as in the file, else without padding.
inline std::uint64_t option_size(const GroupOption& option, bool pads) {
  return pads ? option.bytes.value : option.payload.value;
}
/// [groups][options], as `option_size` counts.
std::vector<std::vector<std::uint64_t>> option_sizes(const std::vector<TensorGroup>& groups,
                                                     bool pads);
/// Of the smallest options of all groups, of those of single experts only where the expert `stays`,
/// in the smallest of its forms. pads: as for `option_size`.
std::uint64_t least_bytes(const std::vector<TensorGroup>& groups, bool pads,
                          const std::function<bool(const TensorGroup&)>& stays);

}  // namespace winnow::compress

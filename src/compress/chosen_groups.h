// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The output as the exporter asks for it, when every group has its choice.
#pragma once

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

/// Options that refer to what `chosen` refers to, and to its groups as they are when asked. Without
/// metadata. Where experts are groups of their own the experts vary.
model::ExportOptions export_options(const ChosenGroups& chosen);

/// One group for each expert in the place of the groups that have matrices of experts.
std::vector<TensorGroup> divide_experts(const std::vector<TensorGroup>& groups);

}  // namespace winnow::compress

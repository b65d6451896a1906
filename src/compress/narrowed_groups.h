// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Narrowed experts (narrowing.h) as groups: beside each group of experts' matrices those with fewer
// inner channels, and how these are run in the place of whole ones.
#pragma once

#include <span>
#include <vector>

#include "compress/expert_replacement.h"
#include "compress/group_packer.h"
#include "compress/tensor_group.h"
#include "model/checkpoint.h"

namespace winnow::compress {

/// What the run record calls it. Unlike other replacements it has matrices, and its change is that
/// of `ChannelChoice`.
const ExpertReplacement& narrow_replacement();

/// Appends the narrowed forms of all groups of experts, without options; whether there are any.
bool add_narrowed_groups(const model::Checkpoint& source, std::vector<TensorGroup>& groups);

/// What is measured of down projections alone, for gate and up: the channels. Of what the whole
/// matrix's error does, their rows that stay do what the down projection carries of them
/// (`ChannelChoice::carried`). And to all the noise of the whole groups, which divergences are read
/// off. groups: measured with errors of each part, not divided yet.
void complete_narrowed_groups(std::span<TensorGroup> groups);

/// The whole matrix's form without rounding, in which `pack_at_full_width` runs a narrowed expert
/// that is to be measured by itself: in the type of the source, or for down projections F32 where
/// that type rounds.
PackOrder unrounded(const model::Checkpoint& source, const TensorGroup& group);

/// What `packer` packs; of a narrowed group in matrices of the source's shape: channels that are
/// kept first, then zeros. The three of an expert together give what it gives.
PackedGroup pack_at_full_width(GroupPacker& packer, const PackOrder& order,
                               const model::Checkpoint& source);

}  // namespace winnow::compress

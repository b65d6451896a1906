// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What a group's options were measured to cost, as a file of an unfinished output.
#pragma once

#include <filesystem>

#include "compress/tensor_group.h"

namespace winnow::compress {

/// Errors of all options and noise points, by codec, and the channels of narrowed experts.
void save_costs(const std::filesystem::path& path, const TensorGroup& group);
/// False when there is no such file. Throws Error{kBadData} for one that does not tell of all, or
/// of channels beyond the `inner_channels` that an expert has.
bool load_costs(const std::filesystem::path& path, TensorGroup& group,
                std::uint32_t inner_channels);

/// Measured divergences of the noise points of all groups.
void save_noise(const std::filesystem::path& path, const std::vector<TensorGroup>& groups);
/// As `load_costs`.
bool load_noise(const std::filesystem::path& path, std::vector<TensorGroup>& groups);

}  // namespace winnow::compress

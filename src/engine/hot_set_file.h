// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The experts that runs of a model asked for most, as a file. docs/formats/hot-set.md describes it.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "experts/store.h"

namespace winnow::engine {

inline constexpr int kHotSetVersion = 1;

/// Through an os::AtomicFile. source: model::describe_source of the model.
void write_hot_set(const std::filesystem::path& path, std::string_view source,
                   std::span<const experts::ExpertUses> hottest);

/// Throws Error{kBadData} that names the file for anything that is not as docs/formats/hot-set.md
/// says, Error{kUsage} for the hot set of another model than `source`.
std::vector<experts::ExpertUses> read_hot_set(const std::filesystem::path& path,
                                              std::string_view source);

}  // namespace winnow::engine

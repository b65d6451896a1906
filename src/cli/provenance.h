// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Where an output came from, as metadata that is the same whenever and wherever it is made.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "formats/metadata.h"
#include "model/checkpoint.h"

namespace winnow::cli {

/// winnow.version; winnow.source: label and fingerprint of the model read; winnow.command:
/// `command`, the subcommand with the options that decide the output's bytes, and without paths,
/// so that equal work gives equal files.
std::vector<std::pair<std::string, formats::Value>> provenance(const model::Checkpoint& source,
                                                               const std::string& command);

/// Refuses an output that is the input itself (or one of its files or its folder), and an existing
/// file unless `replace`. Folders are judged by their writer. Throws Error{kUsage}.
void check_output_path(const model::Checkpoint& source, const std::string& output, bool replace);

}  // namespace winnow::cli

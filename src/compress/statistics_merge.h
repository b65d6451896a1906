// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Adds statistics files up.
#pragma once

#include <filesystem>
#include <span>

#include "base/log.h"
#include "compress/partial_output.h"
#include "model/checkpoint.h"

namespace winnow::compress {

/// Writes to `out` what one pass over the texts of all `inputs`, one after the other, would have
/// given; domains of the same name are joined. The bytes are the same when every input but the last
/// holds whole units of each domain that goes on; otherwise sums agree to 1e-12 of the sum of the
/// magnitudes of their terms, and other sequences may be held out. Holds the arrays of one layer
/// and domain, or the held-out text of one input and domain in memory. Throws Error{kBadData} for a
/// file that is damaged, of another model, context or instruction set, or that repeats the text of
/// another; what writing throws.
void merge_statistics(const model::Checkpoint& checkpoint,
                      std::span<const std::filesystem::path> inputs,
                      const std::filesystem::path& out, const std::string& version,
                      PartialOutput::Start start, Log& log);

}  // namespace winnow::compress

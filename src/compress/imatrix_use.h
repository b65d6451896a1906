// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Importance matrices of llama.cpp as moments to compress with, and from statistics.
#pragma once

#include <filesystem>

#include "compress/moments.h"
#include "compress/statistics_file.h"
#include "formats/imatrix.h"
#include "model/spec.h"

namespace winnow::compress {

/// Whether a file that is given as statistics is an importance matrix, of either form, by its first
/// bytes. Throws as opening does.
bool is_imatrix(const std::filesystem::path& path);

/// The moments in an importance matrix. Inputs of experts are not weighted with router weights in
/// it; an expert that saw no token has none. Counts that the binary form lacks are estimated:
/// chunks of 512 tokens, shared evenly by the experts. Throws Error{kBadData}: malformed, of other
/// widths or experts than the model's, or no entry has a name of this model.
InputMoments load_imatrix(const std::filesystem::path& path, const model::ModelSpec& spec);

/// Writes what llama.cpp's own tool collects by default: unweighted sums of squares of the inputs
/// of the matrices in layers, over all domains. Holds one tensor's sums in memory. Throws as
/// reading statistics and writing do.
void write_imatrix(const StatisticsFile& statistics, const model::ModelSpec& spec,
                   const std::filesystem::path& out);

/// GGUF for names that end in .gguf, else the binary form.
formats::ImatrixForm imatrix_form_of(const std::filesystem::path& path);

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How many experts a file has that stock readers run: the same number in every layer, all matrices
// of a role of one type. What leaving experts out costs is measured for several numbers in one
// sweep; since types cost what they cost on top, numbers are tried, the most experts first, as long
// as leaving them out alone costs less than the best file so far does in all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "compress/calibration_text.h"
#include "compress/compressor.h"
#include "compress/expert_sums.h"

namespace winnow::compress {

/// [layers], as `Checkpoint::with_experts` takes them.
using KeptExperts = std::vector<std::vector<ExpertId>>;

/// Numbers of experts to try for N: eighths of them, fewer than N and at least `least`; falling.
std::vector<std::uint32_t> counts_to_try(std::uint32_t experts, std::uint32_t least);

/// Of a layer, the `keep` experts without which the output would change most, were each left out
/// alone (tokens go to their next best), and all that `stays`; rising. `keep` is at least as many.
std::vector<ExpertId> most_needed(const LayerSums& sums, const std::vector<bool>& stays,
                                  std::size_t keep);

/// Writes `out` as `compress_model` does, with as many experts as lose least on the probe, super
/// experts among them. reduced: opens the source with some of its experts alone. windows: the text,
/// not empty. `counts_record` of the result holds the numbers tried, `keep` and what was `kept`.
/// With a limit of memory a smaller model's loss is what was measured of leaving experts out plus
/// what is predicted for its types. Throws as `compress_model`, and Error{kUsage} where the layers
/// have different numbers of experts. Work is kept in <OUT>.keep-N.partial/ until the end.
CompressResult compress_portable(
    const model::Checkpoint& source, const std::filesystem::path& out,
    const metrics::WindowSet& windows, const CompressOptions& options,
    const std::function<model::Checkpoint(const KeptExperts&)>& reduced, Log& log);

}  // namespace winnow::compress

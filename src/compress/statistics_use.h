// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// From a statistics file to what compression works with: moments of the inputs and held-out text.
#pragma once

#include <functional>
#include <string>

#include "compress/moments.h"
#include "compress/statistics_file.h"
#include "metrics/text_data.h"
#include "model/spec.h"

namespace winnow::compress {

/// How much a domain counts; 1 for the sums as they are, 0 leaves it out.
using DomainWeight = std::function<double(const std::string& domain)>;

/// The moments that InputMoments would have collected from the counted sequences, up to the
/// rounding of f64 sums; without router weights only those of matrices in layers, as importance
/// matrices have them. Numbers of tokens are not weighted. Throws Error{kBadData} for arrays that
/// are missing or of another size than the model's.
InputMoments load_moments(const StatisticsFile& statistics, const model::ModelSpec& spec,
                          const DomainWeight& weight,
                          RouterWeights router_weights = RouterWeights::kSquared);

/// The held-out sequences, with the domains of the file; no windows when nothing was held out.
/// Throws Error{kBadData} when lengths and tokens do not agree, or a token is outside the
/// vocabulary.
metrics::WindowSet held_out_text(const StatisticsFile& statistics, std::uint32_t vocab_size);

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// --weight DOMAIN=W: how much each domain of a text counts.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "compress/statistics_use.h"

namespace winnow::cli {

/// Of flags as "python=3". Throws Error{kUsage} for another form, a weight outside [0, 1e6], and a
/// domain with two weights.
std::map<std::string, double> domain_weights(const std::vector<std::string>& flags);

/// The same for the sums of a statistics file; 1 for domains without a flag. Throws Error{kUsage}
/// also for domains that the file does not have.
compress::DomainWeight weight_of_domain(const std::vector<std::string>& flags,
                                        const compress::StatisticsFile& statistics);

}  // namespace winnow::cli

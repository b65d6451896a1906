// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/domain_weights.h"

#include <algorithm>

#include "base/error.h"
#include "cli/options.h"

namespace winnow::cli {

std::map<std::string, double> domain_weights(const std::vector<std::string>& flags) {
  std::map<std::string, double> weights;
  for (const std::string& flag : flags) {
    const std::size_t at = flag.rfind('=');
    if (at == std::string::npos || at == 0) {
      fail(ErrorCode::kUsage, "--weight {}: give a domain and its weight, as in python=3", flag);
    }
    const double weight = parse_real(flag.substr(at + 1), "--weight", 0, 1e6);
    if (!weights.emplace(flag.substr(0, at), weight).second) {
      fail(ErrorCode::kUsage, "--weight {}: the domain has a weight already", flag);
    }
  }
  return weights;
}

compress::DomainWeight weight_of_domain(const std::vector<std::string>& flags,
                                        const compress::StatisticsFile& statistics) {
  const std::map<std::string, double> weights = domain_weights(flags);
  const auto& domains = statistics.header().domains;
  for (const auto& entry : weights) {
    const bool known = std::any_of(domains.begin(), domains.end(),
                                   [&](const auto& domain) { return domain.name == entry.first; });
    if (known) continue;
    fail(ErrorCode::kUsage, "--weight {}: {} has no such domain", entry.first, statistics.name());
  }
  return [weights](const std::string& domain) {
    const auto found = weights.find(domain);
    return found == weights.end() ? 1.0 : found->second;
  };
}

}  // namespace winnow::cli

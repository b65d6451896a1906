// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A trace of routes replayed with several policies and numbers of slots, as JSON and as a table.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/log.h"
#include "engine/route_trace_file.h"
#include "experts/cache_policy.h"
#include "experts/simulated_cache.h"

namespace winnow::cli {

/// One line of the table.
struct ReplayRow {
  std::string_view name;                     ///< of a policy or a bound
  std::vector<experts::CacheCounts> counts;  ///< [slots]
};

struct ReplayReport {
  std::vector<std::size_t> slots;
  std::vector<ReplayRow> policies;
  experts::CacheCounts first_uses;  ///< with slots for all
  ReplayRow belady, static_optimum;
};

/// Throws Error{kUsage} for fewer slots than a token uses in a layer, Error{kInterrupted}.
ReplayReport replay_all(const experts::RouteTrace& routes, std::vector<std::size_t> slots,
                        std::span<const experts::PolicyEntry* const> policies, std::uint64_t seed,
                        Log& log);

/// `trace` (what it is of), `slots` and, of each, the counts by policy.
Json to_json(const ReplayReport& report, const engine::RecordedTrace& trace);
std::string to_text(const ReplayReport& report, const engine::RecordedTrace& trace);

}  // namespace winnow::cli

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What a cache policy does with a recorded trace, and what could be done with hindsight.
#pragma once

#include <cstddef>
#include <cstdint>

#include "experts/cache_policy.h"
#include "experts/route_trace.h"
#include "experts/simulated_cache.h"

namespace winnow::experts {

/// Every function here takes slots >= trace.top_k, as a token needs them, and throws
/// Error{kUsage} otherwise. A token is a pass, as in decode.
CacheShape shape_of(const RouteTrace& trace, std::size_t slots);

/// From an empty cache. Cost: that of the policy.
CacheCounts replay(const RouteTrace& trace, const PolicyEntry& policy, std::size_t slots,
                   std::uint64_t seed);

/// Belady's MIN (IBM Systems Journal 5, 1966): of those that the layer has not chosen, the expert
/// whose next use is farthest leaves. No policy that reads on demand has more hits. Holds one
/// number per choice of the trace; O(log slots) each.
CacheCounts replay_belady(const RouteTrace& trace, std::size_t slots);

/// The fixed set of `slots` experts with most uses, chosen with hindsight and there from the
/// beginning, beside which misses pass through. A short trace may give it more hits than Belady's
/// MIN has, which begins empty.
CacheCounts replay_static_optimum(const RouteTrace& trace, std::size_t slots);

/// Different experts that the trace uses: from so many slots on only first uses are misses.
std::size_t distinct_experts(const RouteTrace& trace);

}  // namespace winnow::experts

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Any bytes as a trace of routes: they are refused with an Error, or every policy can replay them.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/error.h"
#include "engine/route_trace_file.h"
#include "experts/replay.h"
#include "formats/test_files.h"

namespace {

constexpr std::size_t kLongest = 20'000;  // choices: replays are not what is searched for crashes
constexpr std::size_t kMostKeys = 20'000;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace winnow;
  try {
    const auto trace = engine::read_route_trace(
        formats::testing::memory_file("m", std::string(reinterpret_cast<const char*>(data), size)));
    const experts::RouteTrace& routes = trace.routes;
    const std::size_t keys = std::size_t{routes.num_layers} * routes.num_experts;
    if (routes.experts.size() > kLongest || keys > kMostKeys) return 0;
    const auto bound = experts::replay_belady(routes, routes.top_k);
    for (const experts::PolicyEntry* policy : experts::cache_policies()) {
      const auto counts = experts::replay(routes, *policy, routes.top_k, 0);
      if (counts.requests() != bound.requests() || counts.hits > bound.hits) __builtin_trap();
    }
    if (experts::distinct_experts(routes) > bound.misses) __builtin_trap();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kInternal || error.message().empty()) __builtin_trap();
  }
  return 0;
}

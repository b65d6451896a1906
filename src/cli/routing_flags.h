// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The flags by which a run goes to fewer experts, the same for every command that runs a model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/json.h"
#include "base/log.h"
#include "engine/routing_policy.h"
#include "model/checkpoint.h"

namespace CLI {
class App;
}

namespace winnow::cli {

struct RoutingFlags {
  std::optional<std::uint32_t> experts_per_token;
  std::optional<std::uint32_t> gates_over;
  std::optional<double> skip_share;  ///< of the calibration text's expert slots, 0 to 1
  std::optional<engine::RoutingPolicy::PreferCached> prefer_cached;

  bool given() const { return experts_per_token || gates_over || skip_share || prefer_cached; }
};

/// --experts-per-token, --gates-over, --skip-experts, --prefer-cached.
void add_routing(CLI::App& app, RoutingFlags& flags);

/// What the flags ask of this model, checked. Throws Error{kUsage} for what it cannot do, or when
/// its file has no ratios to skip by, Error{kBadData} when they are damaged. Warns of a flag that
/// changes nothing.
engine::RoutingPolicy routing_policy(const RoutingFlags& flags, const model::Checkpoint& checkpoint,
                                     Log& log);

/// `experts_per_token`, `gates_over`, `asked_share`, each where it was given, and what was skipped:
/// `skipped_share`, `layers`, and with --prefer-cached `redirected_share`.
Json to_json(const RoutingFlags& flags, const engine::ExpertUse& use);
/// The same shares in a line.
std::string to_text(const engine::ExpertUse& use);

}  // namespace winnow::cli

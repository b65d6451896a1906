// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/replay_report.h"

#include <fmt/format.h>

#include <utility>

#include "experts/replay.h"

namespace winnow::cli {
namespace {

using experts::CacheCounts;

double share_of(std::size_t slots, const engine::RecordedTrace& trace) {
  return static_cast<double>(slots) / static_cast<double>(trace.routes.stored_experts);
}

/// Experts that one token uses in all layers together.
std::uint64_t experts_per_token(const experts::RouteTrace& routes) {
  return std::uint64_t{routes.top_k} * routes.layers.size();
}

Json to_json(const CacheCounts& counts) {
  Json json;
  json["hits"] = counts.hits;
  json["misses"] = counts.misses;
  json["evictions"] = counts.evictions;
  json["hit_rate"] = counts.hit_rate();
  return json;
}

std::string to_text(const ReplayRow& row) {
  std::string line = fmt::format("{:<20}", row.name);
  for (const CacheCounts& counts : row.counts) {
    line += fmt::format(" {:>12}", fmt::format("{:.2f}%", 100 * counts.hit_rate()));
  }
  return line + "\n";
}

std::string to_text(const engine::RecordedTrace& trace, const ReplayReport& report) {
  const experts::RouteTrace& routes = trace.routes;
  return fmt::format(
      "{}: {} layers with experts, {} experts stored, {} a token\n"
      "{} tokens in {} texts use {} experts {} times: at most {:.2f}% can be hits\n",
      trace.source, routes.layers.size(), routes.stored_experts, experts_per_token(routes),
      routes.tokens(), routes.sequences.size(), report.first_uses.misses,
      report.first_uses.requests(), 100 * report.first_uses.hit_rate());
}

}  // namespace

ReplayReport replay_all(const experts::RouteTrace& routes, std::vector<std::size_t> slots,
                        std::span<const experts::PolicyEntry* const> policies, std::uint64_t seed,
                        Log& log) {
  ReplayReport report{std::move(slots), {}, {}, {"Belady", {}}, {"static optimum", {}}};
  for (const std::size_t n : report.slots) {
    report.belady.counts.push_back(experts::replay_belady(routes, n));
    report.static_optimum.counts.push_back(experts::replay_static_optimum(routes, n));
  }
  const std::size_t all = std::size_t{routes.num_layers} * routes.num_experts;
  report.first_uses = experts::replay_belady(routes, all);
  std::size_t done = 0;
  for (const experts::PolicyEntry* policy : policies) {
    ReplayRow& row = report.policies.emplace_back(ReplayRow{policy->name, {}});
    for (const std::size_t n : report.slots) {
      log.progress("replaying", done++, policies.size() * report.slots.size(), "replays");
      log.check_interrupt();
      row.counts.push_back(experts::replay(routes, *policy, n, seed));
    }
  }
  return report;
}

Json to_json(const ReplayReport& report, const engine::RecordedTrace& trace) {
  const experts::RouteTrace& routes = trace.routes;
  Json json;
  json["source"] = trace.source;
  json["layers"] = routes.layers.size();
  json["stored_experts"] = routes.stored_experts;
  json["top_k"] = routes.top_k;
  json["experts_per_token"] = experts_per_token(routes);
  json["tokens"] = routes.tokens();
  json["sequences"] = routes.sequences.size();
  json["requests"] = report.first_uses.requests();
  json["first_uses"] = report.first_uses.misses;
  json["replays"] = Json::array();
  for (std::size_t i = 0; i < report.slots.size(); ++i) {
    Json replay;
    replay["slots"] = report.slots[i];
    replay["share"] = share_of(report.slots[i], trace);
    for (const ReplayRow& row : report.policies) {
      replay["policies"][std::string(row.name)] = to_json(row.counts[i]);
    }
    replay["belady"] = to_json(report.belady.counts[i]);
    replay["static_optimum"] = to_json(report.static_optimum.counts[i]);
    json["replays"].push_back(std::move(replay));
  }
  return json;
}

std::string to_text(const ReplayReport& report, const engine::RecordedTrace& trace) {
  std::string text = to_text(trace, report) + fmt::format("{:<20}", "slots");
  for (const std::size_t slots : report.slots) {
    text +=
        fmt::format(" {:>12}", fmt::format("{} ({:.0f}%)", slots, 100 * share_of(slots, trace)));
  }
  text += "\n";
  for (const ReplayRow& row : report.policies) text += to_text(row);
  return text + to_text(report.belady) + to_text(report.static_optimum);
}

}  // namespace winnow::cli

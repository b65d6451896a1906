// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/pmq.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "base/error.h"
#include "compress/allocation.h"
#include "compress/calibration_text.h"
#include "os/file.h"

namespace winnow::compress {
namespace {

constexpr double kHeldBits = 4;
constexpr const char* kErrorsFile = "experts.json";
constexpr Bytes kLongestErrors{std::uint64_t{1} << 30};

bool is_of_experts(const TensorGroup& group) { return model::traits(group.role).per_expert; }

std::size_t smallest(const std::vector<std::uint64_t>& bytes) {
  return static_cast<std::size_t>(std::min_element(bytes.begin(), bytes.end()) - bytes.begin());
}

/// The option nearest to kHeldBits of those with at most `ceiling` bits, of two alike the one that
/// errs less; the smallest where there is none.
std::size_t nearest_option(const TensorGroup& group, const std::vector<std::uint64_t>& bytes,
                           double ceiling) {
  std::optional<std::size_t> best;
  const auto is_better = [&](const GroupOption& a, const GroupOption& b) {
    const double of_a = std::fabs(a.codec->bits_per_weight() - kHeldBits);
    const double of_b = std::fabs(b.codec->bits_per_weight() - kHeldBits);
    return of_a != of_b ? of_a < of_b : a.error < b.error;
  };
  for (std::size_t o = 0; o < group.options.size(); ++o) {
    if (group.options[o].codec->bits_per_weight() > ceiling) continue;
    if (!best || is_better(group.options[o], group.options[*best])) best = o;
  }
  return best.value_or(smallest(bytes));
}

Mix held_below(std::span<const TensorGroup> groups, const MixProblem& problem, double ceiling) {
  Mix mix;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    mix.push_back(is_of_experts(groups[g]) ? smallest(problem.bytes[g])
                                           : nearest_option(groups[g], problem.bytes[g], ceiling));
  }
  return mix;
}

/// The groups of a layer's experts as a knapsack of its own.
struct LayerExperts {
  std::vector<std::size_t> groups;
  std::uint64_t weights = 0;
  std::uint64_t least = 0;  // bytes of their smallest options

  Mix solve(const DamageTable& damages, const MixProblem& problem, std::uint64_t room) const {
    MixProblem part{{}, room};
    DamageTable part_damages;
    for (const std::size_t g : groups) {
      part.bytes.push_back(problem.bytes[g]);
      part_damages.push_back(damages[g]);
    }
    return part.solve(part_damages);
  }
};

std::map<std::uint32_t, LayerExperts> experts_by_layer(std::span<const TensorGroup> groups,
                                                       const MixProblem& problem) {
  std::map<std::uint32_t, LayerExperts> layers;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    if (!is_of_experts(groups[g])) continue;
    LayerExperts& layer = layers[index(groups[g].layer)];
    layer.groups.push_back(g);
    layer.weights += groups[g].weights;
    layer.least += problem.bytes[g][smallest(problem.bytes[g])];
  }
  return layers;
}

/// So many bytes as that share of all.
std::uint64_t share_of(std::uint64_t bytes, std::uint64_t part, std::uint64_t whole) {
  if (part == whole) return bytes;
  const double share = static_cast<double>(part) / static_cast<double>(whole);
  return static_cast<std::uint64_t>(std::floor(static_cast<double>(bytes) * share));
}

/// What an unfinished run has measured on as many tokens.
std::optional<ExpertErrors> read_errors(const std::filesystem::path& path,
                                        const AllocationContext& context) {
  if (!std::filesystem::exists(path)) return std::nullopt;
  const Json json = parse_json(os::read_text_file(path, kLongestErrors), path.string());
  try {
    if (json.at("tokens").get<std::uint64_t>() != context.options.pmq.tokens) return std::nullopt;
    return expert_errors_from_json(json, context.groups);
  } catch (const Json::exception&) {
    fail_data("{}: is no record of experts; add --restart to begin anew", path.string());
  }
}

Json record_of(const AllocationContext& context, const ExpertErrors& errors, const Mix& mix,
               const DamageTable& damages) {
  const PmqOptions& options = context.options.pmq;
  Json record = {{"alpha", options.alpha}, {"beta", options.beta}, {"gamma", options.gamma}};
  Json layers = Json::array();
  for (const auto& [layer, experts] : experts_by_layer(context.groups, context.problem)) {
    std::uint64_t bytes = 0;
    double damage = 0;
    for (const std::size_t g : experts.groups) {
      bytes += context.problem.bytes[g][mix[g]];
      damage += damages[g][mix[g]];
    }
    const ExpertUse& use = errors.use.at(layer);
    layers.push_back({{"layer", layer},
                      {"bytes", bytes},
                      {"bits_per_weight",
                       8.0 * static_cast<double>(bytes) / static_cast<double>(experts.weights)},
                      {"damage", damage},
                      {"frequency", use.frequency},
                      {"weight", use.weight}});
  }
  record["layers"] = layers;
  return record;
}

}  // namespace

double pmq_damage(const ExpertUse& use, std::span<const double> norms, const PmqOptions& options) {
  WINNOW_CHECK(use.frequency.size() == norms.size() && use.weight.size() == norms.size());
  double damage = 0;
  for (std::size_t e = 0; e < norms.size(); ++e) {
    if (!(norms[e] > 0)) continue;
    damage += std::pow(use.frequency[e], options.alpha) * std::pow(use.weight[e], options.beta) *
              std::pow(norms[e], options.gamma);
  }
  return damage;
}

DamageTable pmq_damages(std::span<const TensorGroup> groups, const ExpertErrors& errors,
                        const PmqOptions& options) {
  DamageTable damages;
  for (const TensorGroup& group : groups) {
    damages.emplace_back();
    if (!is_of_experts(group)) continue;
    for (const auto& norms : errors.norms.at(key_of(group))) {
      damages.back().push_back(pmq_damage(errors.use.at(index(group.layer)), norms, options));
    }
  }
  return damages;
}

Mix hold_others(std::span<const TensorGroup> groups, const MixProblem& problem) {
  double ceiling = std::numeric_limits<double>::infinity();
  for (;;) {
    Mix mix = held_below(groups, problem, ceiling);
    if (problem.size_of(mix) <= problem.room) return mix;
    // All below the largest that any is held at now.
    double most = 0;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      if (is_of_experts(groups[g]) || mix[g] == smallest(problem.bytes[g])) continue;
      most = std::max(most, groups[g].options[mix[g]].codec->bits_per_weight());
    }
    WINNOW_CHECK(most > 0);  // the smallest options fit
    ceiling = std::nextafter(most, 0.0);
  }
}

Mix solve_pmq(std::span<const TensorGroup> groups, const DamageTable& damages, const Mix& held,
              const MixProblem& problem) {
  const auto layers = experts_by_layer(groups, problem);
  std::uint64_t room = problem.room;
  std::uint64_t weights = 0;
  std::uint64_t least_to_come = 0;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    if (!is_of_experts(groups[g])) room -= problem.bytes[g][held[g]];
  }
  for (const auto& [layer, experts] : layers) {
    weights += experts.weights;
    least_to_come += experts.least;
  }
  Mix mix = held;
  std::uint64_t used = 0;
  std::uint64_t weights_so_far = 0;
  for (const auto& [layer, experts] : layers) {
    weights_so_far += experts.weights;
    least_to_come -= experts.least;
    const std::uint64_t until_here = share_of(room, weights_so_far, weights);
    const std::uint64_t share = until_here > used ? until_here - used : 0;
    const std::uint64_t allowed =
        std::max(experts.least, std::min(share, room - used - least_to_come));
    const Mix picks = experts.solve(damages, problem, allowed);
    for (std::size_t i = 0; i < picks.size(); ++i) {
      mix[experts.groups[i]] = picks[i];
      used += problem.bytes[experts.groups[i]][picks[i]];
    }
  }
  return mix;
}

metrics::WindowSet pmq_text(const AllocationContext& context) {
  const CalibrationText& text = *context.text;
  const metrics::WindowSet& all = text.calibration.windows.empty() ? text.probe : text.calibration;
  return divide_text({all.domains, {}}, all, context.options.pmq.tokens).probe;
}

ExpertErrors pmq_errors(const AllocationContext& context) {
  const auto path = context.tools.folder / kErrorsFile;
  if (auto kept = read_errors(path, context)) return *std::move(kept);
  const metrics::WindowSet some = pmq_text(context);
  const WindowBatches batches(some.windows, MemoryPlan::kBatchTokens);
  const auto states = context.memory.sweep_states ? context.tools.folder / "states-experts"
                                                  : std::filesystem::path();
  ExpertErrors errors =
      measure_expert_errors(context.tools, context.groups, context.packer, batches, states);
  Json json = to_json(errors, context.groups);
  json["tokens"] = context.options.pmq.tokens;
  os::write_text_file(path, dump_json(json) + "\n");
  context.tools.saved();
  return errors;
}

AllocationResult choose_pmq(const AllocationContext& context) {
  const ExpertErrors errors = pmq_errors(context);
  const DamageTable damages = pmq_damages(context.groups, errors, context.options.pmq);
  const Mix held = hold_others(context.groups, context.problem);
  AllocationResult result;
  result.mix = solve_pmq(context.groups, damages, held, context.problem);
  result.record["pmq"] = record_of(context, errors, result.mix, damages);
  return result;
}

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/allocation.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "compress/mix_proxies.h"

namespace winnow::compress {
namespace {

/// Every group in the same codec or what its rows fall back to; the largest mix that fits, or the
/// smallest options where none does.
AllocationResult choose_uniform(const AllocationContext& context) {
  AllocationResult best{Mix(context.groups.size())};
  std::uint64_t most = 0;
  for (const quant::Codec* wanted : quant::all_codecs()) {
    Mix mix;
    for (const TensorGroup& group : context.groups) {
      const quant::Codec& codec = quant::codec_for_row(*wanted, group.cols);
      const auto found =
          std::find_if(group.options.begin(), group.options.end(),
                       [&](const GroupOption& option) { return option.codec == &codec; });
      // More bits than it is stored with buy nothing.
      mix.push_back(found == group.options.end()
                        ? group.options.size() - 1
                        : static_cast<std::size_t>(found - group.options.begin()));
    }
    const std::uint64_t bytes = context.problem.size_of(mix);
    if (bytes > context.problem.room || bytes <= most) continue;
    most = bytes;
    best.mix = mix;
  }
  return best;
}

AllocationResult choose_slopes(const AllocationContext& context) {
  return {context.problem.solve(context.predicted()), Json::object()};
}

AllocationResult choose_search(const AllocationContext& context) {
  if (context.measurer == nullptr) return choose_slopes(context);
  const DamageTable predicted = context.predicted();
  const auto solve = [&](std::span<const double> factors) {
    DamageTable damages = predicted;
    for (std::size_t g = 0; g < damages.size(); ++g) {
      for (double& damage : damages[g]) damage *= factors[g];
    }
    return context.problem.solve(damages);
  };
  const MixSearchResult found = search_mix(
      context.groups.size(), solve,
      [&](std::span<const Mix> mixes) { return context.measurer->measure(mixes); },
      context.options.search, context.tools.log);
  AllocationResult result{found.mix, Json::object()};
  result.record["search"] = {
      {"mixes", found.measured}, {"first_kl", found.first}, {"best_kl", found.best}};
  return result;
}

struct Allocator {
  AllocationTraits traits;
  AllocationResult (*choose)(const AllocationContext&);
};

constexpr std::array kAllocators = {
    Allocator{{Allocation::kUniform, "uniform", false, false, false}, choose_uniform},
    Allocator{{Allocation::kPlain, "plain", false, false, false, false}, choose_uniform},
    Allocator{{Allocation::kSlopes, "slopes", false, false, true}, choose_slopes},
    Allocator{{Allocation::kSearch, "search", false, true, true}, choose_search},
    Allocator{{Allocation::kPmq, "pmq", true, false, true}, choose_pmq},
    Allocator{{Allocation::kRanked, "ranked", true, true, true}, choose_ranked},
};

constexpr auto kTraits = [] {
  std::array<AllocationTraits, kAllocators.size()> traits{};
  for (std::size_t i = 0; i < traits.size(); ++i) traits[i] = kAllocators[i].traits;
  return traits;
}();

const Allocator& allocator_of(Allocation kind) {
  const auto* found = std::find_if(kAllocators.begin(), kAllocators.end(),
                                   [&](const Allocator& a) { return a.traits.kind == kind; });
  WINNOW_CHECK(found != kAllocators.end());
  return *found;
}

}  // namespace

Json describe(const AllocationOptions& options) {
  return {
      {"kind", std::string(traits(options.kind).name)},
      {"search",
       {options.search.rounds, options.search.offspring, options.search.step, options.search.seed}},
      {"pmq", {options.pmq.alpha, options.pmq.beta, options.pmq.gamma, options.pmq.tokens}},
      {"ranking",
       {options.ranking.mixes, options.ranking.least_tau, options.ranking.step,
        options.ranking.seed}}};
}

std::span<const AllocationTraits> allocations() { return kTraits; }

const AllocationTraits& traits(Allocation kind) { return allocator_of(kind).traits; }

const AllocationTraits* find_allocation(std::string_view name) {
  for (const AllocationTraits& candidate : kTraits) {
    if (candidate.name == name) return &candidate;
  }
  return nullptr;
}

void check_allocation(Allocation kind, bool has_text, const model::ModelSpec& spec) {
  const AllocationTraits& wanted = traits(kind);
  if (wanted.needs_text && !has_text) {
    fail(ErrorCode::kUsage,
         "--allocation {} runs the model on text: give --data, or --statistics with held-out text",
         wanted.name);
  }
  if (kind == Allocation::kPmq && spec.num_moe_layers() == 0) {
    fail(ErrorCode::kUsage,
         "--allocation {} divides a budget among experts, and this model has none: take "
         "--allocation slopes",
         wanted.name);
  }
}

DamageTable predicted_damages(const std::vector<TensorGroup>& groups) {
  DamageTable damages;
  for (const TensorGroup& group : groups) {
    damages.emplace_back();
    for (const GroupOption& option : group.options) damages.back().push_back(option.predicted_kl);
  }
  return damages;
}

AllocationResult choose_mix(const AllocationContext& context) {
  return allocator_of(context.options.kind).choose(context);
}

}  // namespace winnow::compress

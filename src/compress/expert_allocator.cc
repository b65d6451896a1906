// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/expert_allocator.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/checked.h"
#include "base/error.h"
#include "compress/damage.h"

namespace winnow::compress {
namespace {

using engine::ExpertSubstitute;
using model::Role;

constexpr std::uint64_t kAlignment = 32;

}  // namespace

ExpertOptions expert_options_of_names(const std::string& names) {
  ExpertOptions options{true, {}};
  if (names == "all") {
    const auto all = expert_replacements();
    options.replacements.assign(all.begin(), all.end());
    return options;
  }
  for (std::size_t begin = 0; begin <= names.size();) {
    const std::size_t end = std::min(names.find(',', begin), names.size());
    const std::string name = names.substr(begin, end - begin);
    begin = end + 1;
    if (name == "types") continue;
    const ExpertReplacement* replacement = find_expert_replacement(name);
    if (replacement == nullptr) {
      fail(ErrorCode::kUsage, "--expert-options: '{}' is not among: all, types, {}", name,
           expert_replacement_names());
    }
    options.replacements.push_back(replacement);
  }
  return options;
}

ExpertAllocator::ExpertAllocator(const PackerContext& context, const ExpertOptions& options,
                                 const WindowBatches& probe, SweepMemory memory)
    : context_(context),
      options_(options),
      probe_(probe),
      memory_(std::move(memory)),
      constants_(context.source.spec().num_hidden_layers),
      slopes_(context.source.spec().num_hidden_layers) {}

void ExpertAllocator::measure(const std::vector<TensorGroup>& groups, const WindowBatches& text,
                              bool pads, const std::filesystem::path& states) {
  const model::ModelSpec& spec = context_.source.spec();
  WindowStream stream(text, spec.hidden_size, states);
  const bool sums_needed = !options_.replacements.empty();
  if (sums_needed) stream.embed(context_.runner, nullptr, context_.log);
  for (std::uint32_t l = 0; l < spec.num_hidden_layers; ++l) {
    const LayerId layer{l};
    LayerSums sums;
    if (sums_needed) context_.runner.load(layer);
    if (spec.is_moe_layer(layer)) {
      if (sums_needed) {
        sums = collect_expert_sums(context_.runner, spec, layer, stream, context_.log);
      }
      add_items(layer, groups, sums, pads);
    }
    if (!sums_needed) continue;
    if (l + 1 < spec.num_hidden_layers) stream.run(context_.runner, stream, nullptr, context_.log);
    context_.log.progress("watching experts", l + 1, spec.num_hidden_layers, "layers");
  }
  predict();
}

void ExpertAllocator::add_items(LayerId layer, const std::vector<TensorGroup>& groups,
                                const LayerSums& sums, bool pads) {
  const model::ModelSpec& spec = context_.source.spec();
  const std::uint64_t vector_bytes = std::uint64_t{spec.hidden_size} * sizeof(float);
  const std::size_t first = items_.size();
  for (std::uint32_t e = 0; e < spec.num_experts(layer); ++e) {
    ExpertItem item{layer, ExpertId{e}, {}, {}, vector_bytes};
    for (const ExpertReplacement* how : options_.replacements) {
      const double change = change_per_token(*how, sums, item.expert);
      if (!std::isfinite(change)) continue;
      const bool has_values = how->substitute == ExpertSubstitute::Kind::kConstant;
      const std::uint64_t padded = checked_align_up(vector_bytes, kAlignment).value();
      item.replacements.push_back({how, has_values ? (pads ? padded : vector_bytes) : 0, change});
    }
    items_.push_back(std::move(item));
    if (!sums.experts.empty()) {
      constants_[index(layer)].push_back(best_constant(sums.experts[e]));
    }
  }
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const TensorGroup& group = groups[g];
    if (!group.only || group.layer != layer) continue;
    items_[first + index(*group.only)].groups.push_back(g);
    if (group.role == Role::kExpertDownProj) slopes_[index(layer)] = group.kl_per_error;
  }
  limit_dropped(std::span(items_).subspan(first));
}

/// A token has to have experts to choose from: half as many again as it goes to.
void ExpertAllocator::limit_dropped(std::span<ExpertItem> items) const {
  const auto dropped = [](ExpertItem& item) {
    return std::find_if(item.replacements.begin(), item.replacements.end(),
                        [](const ReplacementOption& option) { return !option.how->kind; });
  };
  const std::size_t top_k = context_.source.spec().moe.top_k;
  const std::size_t least = std::min(items.size(), top_k + (top_k + 1) / 2);
  std::vector<std::pair<double, std::size_t>> changes;
  for (std::size_t i = 0; i < items.size(); ++i) {
    const auto found = dropped(items[i]);
    if (found != items[i].replacements.end()) changes.emplace_back(found->change, i);
  }
  std::sort(changes.begin(), changes.end());
  for (std::size_t c = items.size() - least; c < changes.size(); ++c) {
    ExpertItem& item = items[changes[c].second];
    item.replacements.erase(dropped(item));
  }
}

void ExpertAllocator::predict() {
  for (ExpertItem& item : items_) {
    for (ReplacementOption& option : item.replacements) {
      option.predicted_kl = slopes_[index(item.layer)] * option.change;
    }
  }
}

LayerSubstitutes ExpertAllocator::substitutes(const ExpertMix& mix) const {
  LayerSubstitutes all;
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (!mix.replaced[i]) continue;
    const ExpertItem& item = items_[i];
    std::vector<ExpertSubstitute>& layer = all[index(item.layer)];
    layer.resize(context_.source.spec().num_experts(item.layer));
    ExpertSubstitute& substitute = layer[index(item.expert)];
    substitute.kind = item.replacements[*mix.replaced[i]].how->substitute;
    if (substitute.kind == ExpertSubstitute::Kind::kConstant) {
      substitute.values = constant(item.layer, item.expert);
    }
  }
  return all;
}

const std::vector<float>& ExpertAllocator::constant(LayerId layer, ExpertId expert) const {
  return constants_[index(layer)][index(expert)];
}

/// Each layer's replacements alone, and all together: what they are more or less than the sum
/// scales all slopes.
void ExpertAllocator::fit_slopes(const ExpertMix& mix) {
  const LayerSubstitutes all = substitutes(mix);
  std::vector<WeightVariant> variants(1);
  variants[0].experts = all;
  std::vector<std::uint32_t> layers;
  for (const auto& [layer, experts] : all) {
    layers.push_back(layer);
    variants.emplace_back();
    variants.back().experts[layer] = experts;
  }
  std::vector<double> changes(slopes_.size());
  std::size_t replaced = 0;
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (!mix.replaced[i]) continue;
    changes[index(items_[i].layer)] += items_[i].replacements[*mix.replaced[i]].change;
    ++replaced;
  }
  const std::vector<double> divergences = measure_divergences(
      context_.runner, context_.source.spec(), probe_, variants, memory_, context_.log);
  double sum = 0;
  for (std::size_t v = 1; v < divergences.size(); ++v) sum += std::max(divergences[v], 0.0);
  const double together = sum > 0 ? std::max(divergences[0], 0.0) / sum : 1;
  Json round = {{"replaced", replaced},
                {"predicted_kl", predicted_kl(mix)},
                {"measured_kl", divergences[0]},
                {"sum_of_layers_kl", sum}};
  rounds_.push_back(round);
  for (std::size_t v = 1; v < divergences.size(); ++v) {
    const std::uint32_t layer = layers[v - 1];
    const double slope = together * std::max(divergences[v], 0.0) / changes[layer];
    if (std::isfinite(slope) && slope > 0) slopes_[layer] = slope;
  }
  predict();
}

ExpertMix ExpertAllocator::solve(MixProblem problem, const DamageTable& damages) const {
  for (const ExpertItem& item : items_) problem.room += item.router_bytes;
  const auto mix = solve_experts(problem, damages, items_);
  WINNOW_CHECK(mix.has_value());
  return *mix;
}

ExpertMix ExpertAllocator::choose(const MixProblem& problem, const DamageTable& damages) {
  ExpertMix mix = solve(problem, damages);
  for (int round = 0; round < options_.rounds; ++round) {
    const auto is_replaced = [](const auto& choice) { return choice.has_value(); };
    if (std::none_of(mix.replaced.begin(), mix.replaced.end(), is_replaced)) break;
    fit_slopes(mix);
    ExpertMix next = solve(problem, damages);
    const bool stays = next.replaced == mix.replaced;
    mix = std::move(next);
    if (stays) break;
  }
  return mix;
}

ExpertMix ExpertAllocator::refill(MixProblem problem, const DamageTable& damages,
                                  const ExpertMix& mix, std::uint64_t spare) const {
  problem.room = size_of(problem, items_, mix) + spare;
  return solve_types(problem, damages, items_, mix.replaced);
}

double ExpertAllocator::predicted_kl(const ExpertMix& mix) const {
  double total = 0;
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (mix.replaced[i]) total += items_[i].replacements[*mix.replaced[i]].predicted_kl;
  }
  return total;
}

Json ExpertAllocator::record(const ExpertMix& mix) const {
  Json experts = Json::array();
  for (std::size_t i = 0; i < items_.size(); ++i) {
    const ExpertItem& item = items_[i];
    if (item.replacements.empty()) continue;
    Json options = Json::array();
    for (const ReplacementOption& option : item.replacements) {
      options.push_back({{"replacement", std::string(option.how->name)},
                         {"bytes", option.bytes},
                         {"change", option.change},
                         {"predicted_kl", option.predicted_kl}});
    }
    Json expert = {{"layer", index(item.layer)}, {"expert", index(item.expert)}};
    if (mix.replaced[i]) {
      expert["chosen"] = std::string(item.replacements[*mix.replaced[i]].how->name);
    }
    expert["options"] = std::move(options);
    experts.push_back(std::move(expert));
  }
  return {{"kl_per_change", slopes_}, {"rounds", rounds_}, {"experts", std::move(experts)}};
}

}  // namespace winnow::compress

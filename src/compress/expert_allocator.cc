// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/expert_allocator.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/checked.h"
#include "base/error.h"
#include "compress/expert_likeness.h"
#include "compress/expert_refinement.h"
#include "compress/expert_selection.h"
#include "compress/narrowed_groups.h"
#include "compress/other_text.h"
#include "formats/gguf.h"

namespace winnow::compress {
namespace {

using engine::ExpertSubstitute;
using model::Role;

// The groups of an expert, in the order of groups.
constexpr std::array kMatrixRoles = {Role::kExpertGateProj, Role::kExpertUpProj,
                                     Role::kExpertDownProj};

}  // namespace

ExpertAllocator::ExpertAllocator(const PackerContext& context, const ExpertOptions& options,
                                 GroupPacker& packer, const WindowBatches& probe,
                                 SweepMemory memory)
    : context_(context),
      options_(options),
      packer_(packer),
      probe_(probe),
      memory_(std::move(memory)),
      constants_(context.source.spec().num_hidden_layers),
      largest_outputs_(context.source.spec().num_hidden_layers),
      slopes_(context.source.spec().num_hidden_layers) {
  first_item_.resize(slopes_.size());
  for (const ExpertReplacement* how : options_.replacements) {
    if (how->kind == model::ExpertKind::kShared) shared_ = how;
  }
}

void ExpertAllocator::measure(const std::vector<TensorGroup>& groups, const WindowBatches& text,
                              bool pads, const std::filesystem::path& states) {
  const model::ModelSpec& spec = context_.source.spec();
  WindowStream stream(text, spec.hidden_size, states);
  const bool sums_needed = options_.narrow || !options_.replacements.empty();
  groups_ = &groups;
  if (sums_needed) stream.embed(context_.runner, nullptr, context_.log);
  for (std::uint32_t l = 0; l < spec.num_hidden_layers; ++l) {
    const LayerId layer{l};
    LayerSums sums;
    if (sums_needed) context_.runner.load(layer);
    if (spec.is_moe_layer(layer)) {
      if (sums_needed) {
        sums = collect_expert_sums(context_.runner, spec, layer, stream, context_.log);
        if (shared_ != nullptr) {
          add_likeness(context_.runner, context_.source, layer, stream, sums, context_.log);
        }
      }
      add_items(layer, sums, pads);
    }
    if (!sums_needed) continue;
    if (l + 1 < spec.num_hidden_layers) stream.run(context_.runner, stream, nullptr, context_.log);
    context_.log.progress("watching experts", l + 1, spec.num_hidden_layers, "layers");
  }
  fill_slopes();
  first_slopes_ = slopes_;
  protect_super_experts();
  // Pairs of one layer do not bear on those of another.
  if (shared_ != nullptr) {
    share_alike(
        likenesses_, *shared_, [this](const ExpertItem& item) { return is_super(item); }, items_);
  }
  predict();
}

/// Of layers of experts where rounding was no measure: as the median layer.
void ExpertAllocator::fill_slopes() {
  std::vector<double> known;
  for (const double slope : slopes_) {
    if (slope > 0) known.push_back(slope);
  }
  if (known.empty()) return;
  const auto middle = known.begin() + static_cast<std::ptrdiff_t>(known.size() / 2);
  std::nth_element(known.begin(), middle, known.end());
  for (const ExpertItem& item : items_) {
    double& slope = slopes_[index(item.layer)];
    if (!(slope > 0)) slope = *middle;
  }
}

/// Nothing stands for them, whatever it seems to change: what they do holds the model together
/// (REAP, arXiv:2510.13999). They may share their matrices with others.
void ExpertAllocator::protect_super_experts() {
  super_experts_ = super_experts(largest_outputs_);
  for (ExpertItem& item : items_) {
    if (is_super(item)) item.keep();
  }
}

bool ExpertAllocator::is_super(const ExpertItem& item) const {
  const auto& layer = super_experts_[index(item.layer)];
  return !layer.empty() && layer[index(item.expert)];
}

void ExpertAllocator::add_items(LayerId layer, const LayerSums& sums, bool pads) {
  const model::ModelSpec& spec = context_.source.spec();
  const std::uint64_t vector_bytes = std::uint64_t{spec.hidden_size} * sizeof(float);
  const std::size_t first = items_.size();
  first_item_[index(layer)] = first;
  for (std::uint32_t e = 0; e < spec.num_experts(layer); ++e) {
    ExpertItem item{layer, ExpertId{e}, {}, {}, vector_bytes};
    for (const ExpertReplacement* how : options_.replacements) {
      if (how == shared_) continue;
      const double change = change_per_token(*how, sums, item.expert);
      if (!std::isfinite(change)) continue;
      const bool has_values = how->substitute == ExpertSubstitute::Kind::kConstant;
      const std::uint64_t padded =
          checked_align_up(vector_bytes, formats::kGgufDefaultAlignment).value();
      const std::uint64_t bytes = pads ? padded : vector_bytes;
      item.replacements.push_back({how, has_values ? bytes : 0, change, 0, {}, 0, {}});
    }
    if (!sums.experts.empty()) item.use = sums.experts[e].squared_weights;
    items_.push_back(std::move(item));
    if (!sums.experts.empty()) {
      constants_[index(layer)].push_back(best_constant(sums.experts[e]));
      largest_outputs_[index(layer)].push_back(sums.experts[e].largest_output);
    }
  }
  const std::span<ExpertItem> items = std::span(items_).subspan(first);
  add_groups(items, layer, sums);
  limit_dropped(items);
  if (shared_ != nullptr) add_likenesses(sums, first, *shared_, likenesses_);
}

/// The matrices of a layer's experts, and those of their narrowed forms.
void ExpertAllocator::add_groups(std::span<ExpertItem> items, LayerId layer,
                                 const LayerSums& sums) {
  std::map<std::uint32_t, std::vector<double>> changes, elsewhere;  // by width, of each expert
  for (std::size_t g = 0; g < groups_->size(); ++g) {
    const TensorGroup& group = (*groups_)[g];
    if (!group.only || group.layer != layer) continue;
    ExpertItem& item = items[index(*group.only)];
    if (group.width == 0) {
      WINNOW_CHECK(group.role == kMatrixRoles[item.groups.size()]);
      item.groups.push_back(g);
      if (group.role == Role::kExpertDownProj) slopes_[index(layer)] = group.kl_per_error;
      continue;
    }
    if (!(slopes_[index(layer)] > 0)) {  // nobody knows what rounding the narrowed matrix does
      item.unused_groups.push_back(g);
      continue;
    }
    std::vector<ReplacementOption>& options = item.replacements;
    auto option = std::find_if(options.begin(), options.end(),
                               [&](const auto& o) { return o.width == group.width; });
    if (option == options.end()) {
      options.push_back({&narrow_replacement(), 0, 0, 0, {}, group.width, {}});
      option = std::prev(options.end());
      const double outputs = sums.experts[index(*group.only)].squared_outputs;
      const ChannelChoice& channels = *group.channels.front();
      changes[group.width].push_back(channels.lost * outputs);
      elsewhere[group.width].push_back(channels.lost_elsewhere * outputs);
    }
    option->groups.push_back(g);
  }
  for (ExpertItem& item : items) {
    for (ReplacementOption& option : item.replacements) {
      if (option.width == 0) continue;
      option.change = change_per_token(changes.at(option.width), sums, item.expert);
      option.change_elsewhere = change_per_token(elsewhere.at(option.width), sums, item.expert);
    }
  }
}

/// A token has to have experts to choose from.
void ExpertAllocator::limit_dropped(std::span<ExpertItem> items) const {
  const auto dropped = [](ExpertItem& item) {
    return std::find_if(item.replacements.begin(), item.replacements.end(),
                        [](const ReplacementOption& option) { return !option.how->kind; });
  };
  const std::size_t least = least_router_rows(context_.source.spec().moe, items.size());
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
      const double slope = slopes_[index(item.layer)];
      option.predicted_kl = slope * option.change;
      option.predicted_elsewhere = slope * option.change_elsewhere;
    }
  }
}

void ExpertAllocator::add_to(WeightVariant& variant, const ExpertMix& mix,
                             const MatrixSource& matrix, std::optional<LayerId> layer) const {
  const model::Checkpoint& source = context_.source;
  for (std::size_t i = 0; i < items_.size(); ++i) {
    const ExpertItem& item = items_[i];
    if (!mix.replaced[i] || (layer && item.layer != *layer)) continue;
    const ReplacementOption& option = item.replacements[*mix.replaced[i]];
    if (option.width != 0) {
      if (!matrix) add_narrowed(variant, option);
      continue;
    }
    if (option.how != shared_) {
      std::vector<ExpertSubstitute>& experts = variant.experts[index(item.layer)];
      experts.resize(source.spec().num_experts(item.layer));
      ExpertSubstitute& substitute = experts[index(item.expert)];
      substitute.kind = option.how->substitute;
      if (substitute.kind == ExpertSubstitute::Kind::kConstant) {
        substitute.values = constant(item.layer, item.expert);
      }
      continue;
    }
    const ExpertItem& owner = item_of(item.layer, option.shared_with);
    for (std::size_t m = 0; m < item.groups.size(); ++m) {
      const Role role = kMatrixRoles[m];
      variant.changes[{role, index(item.layer), 1 + index(item.expert)}] = [&source, matrix, role,
                                                                            &item, &owner, m] {
        if (!matrix) return matrix_in_place(source, role, item.layer, item.expert, owner.expert);
        PackedGroup packed = matrix(owner.groups[m]);
        packed.only = item.expert;
        return packed;
      };
    }
  }
}

/// At full width, the rows of gate and up in the order of the channels that are left.
void ExpertAllocator::add_narrowed(WeightVariant& variant, const ReplacementOption& option) const {
  for (const std::size_t g : option.groups) {
    const PackOrder order = unrounded(context_.source, (*groups_)[g]);
    variant.changes[key_of(*order.group)] = [this, order] {
      return pack_at_full_width(packer_, order, context_.source);
    };
  }
}

DamageTable ExpertAllocator::with_shared_use(const DamageTable& damages,
                                             const ExpertMix& mix) const {
  return compress::with_shared_use(damages, items_, mix);
}

const std::vector<float>& ExpertAllocator::constant(LayerId layer, ExpertId expert) const {
  if (index(layer) < joint_constants_.size() && !joint_constants_[index(layer)].empty()) {
    const std::vector<float>& joint = joint_constants_[index(layer)][index(expert)];
    if (!joint.empty()) return joint;
  }
  return constants_[index(layer)][index(expert)];
}

/// Makes what `add_to` puts into variants for narrowed experts: their matrices before rounding.
void ExpertAllocator::prepare_narrowed(const ExpertMix& mix) {
  std::vector<PackOrder> orders;
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (!mix.replaced[i]) continue;
    for (const std::size_t g : items_[i].groups_of(mix.replaced[i])) {
      orders.push_back(unrounded(context_.source, (*groups_)[g]));
    }
  }
  if (!orders.empty()) packer_.prepare(orders);
}

WeightVariant ExpertAllocator::replaced(const ExpertMix& mix) {
  prepare_narrowed(mix);
  WeightVariant variant;
  add_to(variant, mix, {});
  return variant;
}

/// Each layer's replacements alone, and all together: what they are more or less than the sum
/// scales all slopes.
double ExpertAllocator::fit_slopes(const ExpertMix& mix) {
  std::vector<WeightVariant> variants = {replaced(mix)};
  std::vector<std::uint32_t> layers;
  for (std::uint32_t l = 0; l < slopes_.size(); ++l) {
    WeightVariant variant;
    add_to(variant, mix, {}, LayerId{l});
    if (variant.experts.empty() && variant.changes.empty()) continue;
    layers.push_back(l);
    variants.push_back(std::move(variant));
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
  return std::max(divergences[0], 0.0);
}

ExpertMix ExpertAllocator::solve(const MixProblem& problem, const DamageTable& damages) const {
  return solve_decisive(problem, decisive(damages));
}

DamageTable ExpertAllocator::decisive(const DamageTable& damages) const {
  return with_other_text(damages, *groups_, options_.other_text);
}

ExpertMix ExpertAllocator::solve_decisive(MixProblem problem, const DamageTable& damages) const {
  problem.room += router_bytes(items_);
  const std::vector<ExpertItem> items = with_other_text(items_, options_.other_text);
  if (auto mix = solve_experts(problem, damages, items)) return *std::move(mix);
  const std::uint64_t least = least_bytes(problem, items_);
  fail(ErrorCode::kBudget,
       "the budget is {} bytes too small: {} keep their matrices; add as many{}",
       least - std::min(least, problem.room),
       shared_ == nullptr ? "super experts" : "super experts, and experts that others share with,",
       shared_ == nullptr ? "" : ", or leave 'shared' out of --expert-options");
}

ExpertMix ExpertAllocator::search(const MixProblem& problem, const DamageTable& damages,
                                  const ExpertMix& start, const MixSearchOptions& options) {
  const std::vector<double> fitted = slopes_;
  const DamageTable shared = with_shared_use(decisive(damages), start);
  const auto joined = [](const ExpertMix& mix) {
    Mix all = mix.mix;
    for (const auto& choice : mix.replaced) all.push_back(choice ? 1 + *choice : 0);
    return all;
  };
  const auto parted = [&](const Mix& all) {
    const auto groups = static_cast<std::ptrdiff_t>(damages.size());
    ExpertMix mix{Mix(all.begin(), all.begin() + groups), {}};
    for (auto choice = all.begin() + groups; choice != all.end(); ++choice) {
      mix.replaced.push_back(*choice > 0 ? std::optional(*choice - 1) : std::nullopt);
    }
    return mix;
  };
  const MixSearchResult found = search_mix(
      slopes_.size(),
      [&](std::span<const double> factors) {
        for (std::size_t l = 0; l < slopes_.size(); ++l) slopes_[l] = fitted[l] * factors[l];
        predict();
        return joined(solve_decisive(problem, shared));
      },
      [&](std::span<const Mix> mixes) {
        std::vector<WeightVariant> variants;
        std::vector<double> types;
        for (const Mix& all : mixes) {
          const ExpertMix mix = parted(all);
          variants.push_back(replaced(mix));
          types.push_back(damage_of_types(with_shared_use(damages, mix), items_, mix));
        }
        std::vector<double> totals = measure_divergences(context_.runner, context_.source.spec(),
                                                         probe_, variants, memory_, context_.log);
        for (std::size_t m = 0; m < totals.size(); ++m) totals[m] += types[m];
        return totals;
      },
      options, context_.log);
  slopes_ = fitted;
  predict();
  search_ = {{"mixes", found.measured}, {"first_kl", found.first}, {"best_kl", found.best}};
  ExpertMix best = parted(found.mix);
  if (best.replaced != start.replaced) fit_slopes(best);
  return best;
}

ExpertMix ExpertAllocator::choose(const MixProblem& problem, const DamageTable& damages) {
  struct Fitted {
    double damage = INFINITY;  // measured of the replacements, predicted of the types
    ExpertMix mix;
    std::vector<double> slopes;
  } best;
  // So that a budget gives the same mix whatever was chosen before.
  slopes_ = first_slopes_;
  joint_constants_.clear();
  refinement_ = {};
  predict();
  const DamageTable decides = decisive(damages);
  ExpertMix mix = solve_decisive(problem, decides);
  for (int round = 0; round < options_.rounds; ++round) {
    const auto is_replaced = [](const auto& choice) { return choice.has_value(); };
    const bool any = std::any_of(mix.replaced.begin(), mix.replaced.end(), is_replaced);
    const double types = damage_of_types(with_shared_use(damages, mix), items_, mix);
    const double damage = types + (any ? fit_slopes(mix) : 0);
    if (any) rounds_.back()["types_kl"] = types;
    ExpertMix next = any ? solve_decisive(problem, with_shared_use(decides, mix)) : mix;
    const bool stays = next.replaced == mix.replaced;
    if (damage < best.damage) {
      best = {damage, stays ? next : std::move(mix), slopes_};
      if (any) round_taken_ = rounds_.size() - 1;
    }
    if (stays) break;
    mix = std::move(next);
  }
  if (best.slopes.empty()) return mix;
  slopes_ = std::move(best.slopes);
  predict();
  return std::move(best.mix);
}

ExpertMix ExpertAllocator::refine(const ExpertMix& mix, const DamageTable& damages,
                                  const WindowBatches& text, const std::filesystem::path& states) {
  if (!can_be_refined(items_, mix)) return mix;
  const model::ModelSpec& spec = context_.source.spec();
  const DamageTable decides = with_shared_use(decisive(damages), mix);
  WindowStream stream(text, spec.hidden_size, states);
  Refinement refined =
      refine_layers({spec, items_, slopes_, decides, constants_, options_.other_text}, mix,
                    context_.runner, stream, context_.log);
  std::vector<WeightVariant> variants = {replaced(mix), replaced(refined.mix)};
  joint_constants_ = std::move(refined.constants);
  variants.push_back(replaced(refined.mix));
  std::vector<double> totals =
      measure_divergences(context_.runner, spec, probe_, variants, memory_, context_.log);
  totals[0] += damage_of_types(with_shared_use(damages, mix), items_, mix);
  const double types = damage_of_types(with_shared_use(damages, refined.mix), items_, refined.mix);
  totals[1] += types;
  totals[2] += types;
  const auto best = std::min_element(totals.begin(), totals.end()) - totals.begin();
  constexpr std::array kForms = {"unrefined", "swapped", "joint_constants"};
  refinement_ = {{"swaps", refined.swaps}, {"taken", kForms[static_cast<std::size_t>(best)]}};
  for (std::size_t f = 0; f < kForms.size(); ++f) refinement_["kl"][kForms[f]] = totals[f];
  if (best != 2) joint_constants_.clear();
  return best == 0 ? mix : std::move(refined.mix);
}

ExpertMix ExpertAllocator::refill(MixProblem problem, const DamageTable& damages,
                                  const ExpertMix& mix, std::uint64_t spare) const {
  problem.room = size_of(problem, items_, mix) + spare;
  return solve_types(problem, with_shared_use(decisive(damages), mix), items_, mix.replaced);
}

std::vector<double> ExpertAllocator::predicted_by_layer(const ExpertMix& mix) const {
  return compress::predicted_by_layer(items_, mix, slopes_.size());
}

double ExpertAllocator::predicted_kl(const ExpertMix& mix) const {
  double total = 0;
  for (const double layer : predicted_by_layer(mix)) total += layer;
  return total;
}

void ExpertAllocator::scale_slopes(std::span<const double> factors) {
  for (std::size_t l = 0; l < slopes_.size(); ++l) slopes_[l] *= factors[l];
  predict();
}

Json ExpertAllocator::record(const ExpertMix& mix) const {
  Json experts = Json::array();
  for (std::size_t i = 0; i < items_.size(); ++i) {
    const ExpertItem& item = items_[i];
    if (item.replacements.empty()) continue;
    experts.push_back(to_json(item, mix.replaced[i]));
  }
  Json supers = Json::array();
  for (const ExpertItem& item : items_) {
    if (is_super(item)) supers.push_back(place_of(item));
  }
  Json record = {{"other_text", options_.other_text},
                 {"super_experts", std::move(supers)},
                 {"kl_per_change", slopes_},
                 {"rounds", rounds_},
                 {"experts", std::move(experts)}};
  if (!rounds_.empty()) record["round_taken"] = round_taken_;
  if (!search_.is_null()) record["search"] = search_;
  if (!refinement_.is_null()) record["refinement"] = refinement_;
  return record;
}

}  // namespace winnow::compress

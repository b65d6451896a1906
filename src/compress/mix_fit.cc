// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/mix_fit.h"

#include <algorithm>

#include "compress/allocation.h"
#include "compress/narrowed_groups.h"

namespace winnow::compress {
namespace {

/// Behind the roles without layers, two for each.
FitUnit unit_of_layer(LayerId layer, bool experts) {
  return static_cast<FitUnit>(model::kNumRoles) + 2 * index(layer) + (experts ? 1 : 0);
}

void add(std::vector<double>& sums, FitUnit unit, double value) {
  if (sums.size() <= unit) sums.resize(unit + 1);
  sums[unit] += value;
}

}  // namespace

FitUnit unit_of(const TensorGroup& group) {
  if (!model::traits(group.role).per_layer) return static_cast<FitUnit>(group.role);
  return unit_of_layer(group.layer, model::traits(group.role).per_expert);
}

FitUnit unit_of_experts(LayerId layer) { return unit_of_layer(layer, true); }

WeightVariant packed_variant(const ChosenGroups& chosen, std::optional<FitUnit> unit) {
  WeightVariant variant;
  GroupPacker& packer = *chosen.packer;
  for (const TensorGroup& group : chosen.groups) {
    if (group.left_out || packer.is_copy(order_of(group))) continue;
    if (unit && unit_of(group) != *unit) continue;
    variant.changes[key_of(group)] = [&packer, &group, &source = chosen.source] {
      return pack_at_full_width(packer, order_of(group), source);
    };
  }
  if (chosen.experts == nullptr) return variant;
  const auto matrix = [&packer, &groups = chosen.groups](std::size_t g) {
    return packer.pack(order_of(groups[g]));
  };
  for (std::uint32_t l = 0; l < chosen.source.spec().num_hidden_layers; ++l) {
    if (unit && unit_of_experts(LayerId{l}) != *unit) continue;
    chosen.experts->add_to(variant, *chosen.expert_mix, matrix, LayerId{l});
  }
  return variant;
}

std::vector<double> predicted_by_unit(const ChosenGroups& chosen) {
  std::vector<double> sums;
  DamageTable damages = predicted_damages(chosen.groups);
  if (chosen.experts != nullptr) {
    damages = chosen.experts->with_shared_use(damages, *chosen.expert_mix);
    const auto replaced = chosen.experts->predicted_by_layer(*chosen.expert_mix);
    for (std::uint32_t l = 0; l < replaced.size(); ++l) {
      add(sums, unit_of_experts(LayerId{l}), replaced[l]);
    }
  }
  for (std::size_t g = 0; g < chosen.groups.size(); ++g) {
    const TensorGroup& group = chosen.groups[g];
    if (!group.left_out) add(sums, unit_of(group), damages[g][group.chosen]);
  }
  return sums;
}

MixFit fit_mix(const ChosenGroups& chosen, std::span<const double> predicted,
               engine::LayerRunner& runner, const WindowBatches& text, const SweepMemory& memory,
               Log& log) {
  std::vector<WeightVariant> variants = {packed_variant(chosen)};
  std::vector<FitUnit> units;
  for (FitUnit unit = 0; unit < predicted.size(); ++unit) {
    if (!(predicted[unit] > 0)) continue;
    units.push_back(unit);
    variants.push_back(packed_variant(chosen, unit));
  }
  const std::vector<double> measured =
      measure_divergences(runner, chosen.source.spec(), text, variants, memory, log);
  MixFit fit;
  fit.measured = std::max(measured.front(), 0.0);
  fit.factors.assign(predicted.size(), 1);
  double sum = 0;
  for (std::size_t u = 0; u < units.size(); ++u) {
    const double alone = std::max(measured[u + 1], 0.0);
    if (alone > 0) fit.factors[units[u]] = alone / predicted[units[u]];
    sum += fit.factors[units[u]] * predicted[units[u]];
  }
  if (sum > 0 && fit.measured > 0) fit.together = fit.measured / sum;
  return fit;
}

void scale_predictions(const MixFit& fit, std::vector<TensorGroup>& groups) {
  for (TensorGroup& group : groups) {
    const double factor = fit.factor_of(unit_of(group));
    group.kl_per_error *= factor;
    for (GroupOption& option : group.options) option.predicted_kl *= factor;
  }
}

}  // namespace winnow::compress

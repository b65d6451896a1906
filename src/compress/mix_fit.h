// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Weights of layers fitted to the divergence of what was chosen, as it is packed: each layer's
// attention alone, its experts alone, and all at once. What single groups were predicted to cost
// rests on plain rounding of one group at a time; here are the real matrices at the wanted size.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "compress/chosen_groups.h"
#include "compress/divergence_sweep.h"

namespace winnow::compress {

/// Groups whose predictions share a factor: of each layer those of its experts and the others, and
/// each group that is no layer's alone.
using FitUnit = std::uint32_t;
FitUnit unit_of(const TensorGroup& group);
FitUnit unit_of_experts(LayerId layer);

/// The model with what is chosen of one unit, or of all, in the place of the original's matrices.
/// Packed already; borrows what `chosen` refers to. Layers' vectors are the source's.
WeightVariant packed_variant(const ChosenGroups& chosen,
                             std::optional<FitUnit> unit = std::nullopt);

struct MixFit {
  double measured = 0;  ///< nats per token: of everything that is chosen
  /// That over the sum of what each unit causes alone.
  double together = 1;
  /// [units]: what the unit causes alone over what it was predicted to cause; 1 where nothing was
  /// predicted or measured.
  std::vector<double> factors;

  double factor_of(FitUnit unit) const { return unit < factors.size() ? factors[unit] : 1; }
};

/// predicted: [units], nats per token, of what is chosen.
MixFit fit_mix(const ChosenGroups& chosen, std::span<const double> predicted,
               engine::LayerRunner& runner, const WindowBatches& text, const SweepMemory& memory,
               Log& log);

/// [units]: what is chosen is predicted to cause.
std::vector<double> predicted_by_unit(const ChosenGroups& chosen);

/// Multiplies what all options of all groups are predicted to cause by their units' factors.
void scale_predictions(const MixFit& fit, std::vector<TensorGroup>& groups);

}  // namespace winnow::compress

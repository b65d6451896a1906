// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Other weights, experts and choices in the place of a model's own, for measuring what a change
// would do without writing a file.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/units.h"
#include "model/roles.h"
#include "quant/corrected_matrix.h"

namespace winnow::engine {

/// What stands for an expert in a measurement.
struct ExpertSubstitute {
  enum class Kind : std::uint8_t {
    kOwn,       ///< the expert itself, with the matrices that override its own
    kZero,      ///< chosen as before, gives nothing
    kIdentity,  ///< gives the layer's normalised input
    kConstant,  ///< gives `values`
    kDropped,   ///< never chosen: as if its logit were minus infinity
  };
  Kind kind = Kind::kOwn;
  std::span<const float> values = {};  ///< [hidden_size] of kConstant, borrowed
};

/// What is to be used by role, layer and expert. Empty in normal use.
class WeightOverrides {
 public:
  /// `parts`: one matrix per expert for per-expert roles, otherwise one; shapes as the model's own,
  /// borrowed. A part without a codec leaves what was there.
  void set(model::Role role, LayerId layer, std::vector<quant::CorrectedMatrix> parts) {
    std::vector<quant::CorrectedMatrix>& held = parts_[{role, index(layer)}];
    if (held.empty()) held.resize(parts.size());
    WINNOW_CHECK(held.size() == parts.size());
    for (std::size_t part = 0; part < parts.size(); ++part) {
      if (parts[part].codec != nullptr) held[part] = parts[part];
    }
  }
  /// One for each expert of the layer.
  void set_experts(LayerId layer, std::vector<ExpertSubstitute> experts) {
    experts_[index(layer)] = std::move(experts);
  }
  /// Experts that a token goes to in this layer.
  void set_top_k(LayerId layer, std::uint32_t top_k) { top_k_[index(layer)] = top_k; }
  void clear() { *this = {}; }

  /// The override where there is one, otherwise `original`.
  const quant::CorrectedMatrix& resolve(model::Role role, LayerId layer, std::size_t part,
                                        const quant::CorrectedMatrix& original) const {
    if (parts_.empty()) return original;
    const auto found = parts_.find({role, index(layer)});
    if (found == parts_.end() || found->second[part].codec == nullptr) return original;
    return found->second[part];
  }
  std::uint32_t resolve_top_k(LayerId layer, std::uint32_t original) const {
    const auto found = top_k_.find(index(layer));
    return found == top_k_.end() ? original : found->second;
  }
  /// What stands for each expert of the layer; empty: all are themselves.
  std::span<const ExpertSubstitute> experts(LayerId layer) const {
    const auto found = experts_.find(index(layer));
    return found == experts_.end() ? std::span<const ExpertSubstitute>{} : found->second;
  }

 private:
  std::map<std::pair<model::Role, std::uint32_t>, std::vector<quant::CorrectedMatrix>> parts_;
  std::map<std::uint32_t, std::vector<ExpertSubstitute>> experts_;  // by layer
  std::map<std::uint32_t, std::uint32_t> top_k_;                    // by layer
};

}  // namespace winnow::engine

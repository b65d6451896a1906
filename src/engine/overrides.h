// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Other weights in the place of a model's own, for measuring what a change would do without
// writing a file.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "base/units.h"
#include "model/roles.h"
#include "quant/corrected_matrix.h"

namespace winnow::engine {

/// Borrowed matrices by role, layer and expert. Empty in normal use.
class WeightOverrides {
 public:
  /// `parts`: one matrix per expert for per-expert roles, otherwise one; shapes as the model's own.
  /// They must outlive their use.
  void set(model::Role role, LayerId layer, std::vector<quant::CorrectedMatrix> parts) {
    parts_[{role, index(layer)}] = std::move(parts);
  }
  void clear() { parts_.clear(); }
  bool empty() const { return parts_.empty(); }

  /// The override where there is one, otherwise `original`.
  const quant::CorrectedMatrix& resolve(model::Role role, LayerId layer, std::size_t part,
                                        const quant::CorrectedMatrix& original) const {
    if (parts_.empty()) return original;
    const auto found = parts_.find({role, index(layer)});
    return found == parts_.end() ? original : found->second[part];
  }

 private:
  std::map<std::pair<model::Role, std::uint32_t>, std::vector<quant::CorrectedMatrix>> parts_;
};

}  // namespace winnow::engine

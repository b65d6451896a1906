// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Which expert each slot of a batch belongs to.
#pragma once

#include <algorithm>
#include <vector>

#include "engine/observer.h"

namespace winnow::compress {

/// [slots].
inline std::vector<ExpertId> experts_of_slots(const engine::ExpertSlots& slots) {
  std::vector<ExpertId> experts(slots.outputs.rows);
  for (std::size_t i = 0; i < slots.experts.size(); ++i) {
    std::fill(experts.begin() + slots.first[i], experts.begin() + slots.first[i + 1],
              slots.experts[i]);
  }
  return experts;
}

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/route_trace.h"

namespace winnow::experts {

void RouteTrace::choices(std::size_t token, std::size_t i, std::vector<ExpertId>& out) const {
  out.clear();
  const auto row = std::span(experts).subspan((token * layers.size() + i) * top_k, top_k);
  for (const std::uint16_t expert : row) {
    if (expert == kNone) break;
    out.push_back(ExpertId{expert});
  }
}

}  // namespace winnow::experts

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/speed_bound.h"

namespace winnow::engine {

SpeedBound speed_bound(const SpeedTerms& terms) {
  const double missing = (1 - terms.hit_rate) * terms.expert_bytes;
  const double passing = terms.dense_bytes + terms.expert_bytes + terms.passes * missing;
  const double memory_seconds = passing / terms.memory_rate;
  const double disk_seconds = missing > 0 ? missing / terms.disk_rate : 0;
  if (disk_seconds > memory_seconds) return {1 / disk_seconds, SpeedLimit::kDisk};
  return {1 / memory_seconds, SpeedLimit::kMemory};
}

}  // namespace winnow::engine

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/cache_entry.h"

namespace winnow::experts {

std::vector<SlotPool> make_slot_pools(std::span<const SlotClass> classes, const CacheShape& shape,
                                      const PolicyEntry& policy, std::uint64_t seed,
                                      std::byte* place) {
  std::vector<SlotPool> pools;
  for (const SlotClass& c : classes) {
    CacheShape own = shape;
    own.slots = c.slots;
    SlotPool& pool = pools.emplace_back(SlotPool{{}, policy.make(own, seed), KeySet(own), c.slots});
    for (std::size_t slot = 0; slot < c.slots; ++slot, place += c.bytes) pool.free.push_back(place);
  }
  return pools;
}

}  // namespace winnow::experts

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/cache_entry.h"

namespace winnow::experts {

std::vector<std::vector<Entry>> make_entries(const SlotLayout& layout,
                                             std::span<const SlotClass> classes) {
  std::vector<std::vector<Entry>> entries;
  for (std::uint32_t l = 0; l < layout.num_layers(); ++l) {
    auto& layer = entries.emplace_back(layout.num_experts(LayerId{l}));
    for (std::uint32_t e = 0; e < layer.size(); ++e) {
      const std::size_t bytes = layout.record(LayerId{l}, ExpertId{e}).bytes;
      while (bytes != 0 && classes[layer[e].slot_class].bytes < bytes) ++layer[e].slot_class;
    }
  }
  return entries;
}

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

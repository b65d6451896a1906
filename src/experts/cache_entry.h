// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What the cached store knows of an expert and of the slots of one size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <vector>

#include "experts/cache_policy.h"
#include "experts/slot_layout.h"

namespace winnow::experts {

enum class Presence : std::uint8_t { kAbsent, kOnItsWay, kResident, kFailed };

/// An expert with matrices of its own.
struct Entry {
  Presence presence = Presence::kAbsent;
  std::uint32_t slot_class = 0;
  std::uint32_t reads_left = 0;
  std::uint32_t waiting = 0;  ///< batches that have yet to hand it out
  std::uint32_t pins = 0;     ///< handed out
  std::byte* slot = nullptr;  ///< while on its way or resident
  std::uint64_t arrived = 0;  ///< a number that grows with each arrival
  std::exception_ptr error;   ///< while failed, for those who wait
  bool checked = false;       ///< its bytes have once been those that the file's checksum is of

  bool in_use() const { return waiting + pins != 0 || presence == Presence::kOnItsWay; }
};

/// The slots of one size, and who leaves when there are too few.
struct SlotPool {
  std::vector<std::byte*> free;
  std::unique_ptr<CachePolicy> policy;
  KeySet locked;
  std::size_t slots = 0;
  std::size_t pins = 0;  ///< slots that callers hold
};

/// Absent experts of these layers, each of the least class that is large enough.
std::vector<std::vector<Entry>> make_entries(const SlotLayout& layout,
                                             std::span<const SlotClass> classes);

/// One for each class; `place` has room for all slots.
std::vector<SlotPool> make_slot_pools(std::span<const SlotClass> classes, const CacheShape& shape,
                                      const PolicyEntry& policy, std::uint64_t seed,
                                      std::byte* place);

}  // namespace winnow::experts

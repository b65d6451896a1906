// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Experts in a fixed number of slots of memory, read from disk when they are asked for. One layer's
// misses are on their way together, and resident experts are handed out meanwhile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/units.h"
#include "experts/store.h"
#include "os/async_reader.h"
#include "os/read_source.h"

namespace winnow::experts {

struct CacheOptions {
  Bytes slots;            ///< memory of all slots; at least SlotLayout::minimum
  std::size_t top_k = 1;  ///< experts that a token uses in a layer
  std::string policy;     ///< of cache_policies(); "": the first
  std::uint64_t seed = 0;
  os::PageCache page_cache = os::PageCache::kAvoided;
  os::ReaderOptions reader;
};

/// Makes the reader; tests have others than os::make_async_reader.
using MakeReader = std::function<std::unique_ptr<os::AsyncReader>(
    std::vector<std::unique_ptr<os::ReadSource>>, const os::ReaderOptions&)>;

/// The files of `catalogue` stay open, the catalogue itself is copied. All memory is taken here and
/// given back at the end; requests allocate nothing that grows. A request may ask for more experts
/// than there are slots: they come as those that were handed out before are given back, so whoever
/// waits for the next one must not hold all the slots. Batches and pins end before the store.
///
/// Throws Error{kBudget} when `slots` is below the minimum, Error{kUsage} for an unknown policy,
/// and as make_read_source and make_async_reader.
std::unique_ptr<ExpertStore> make_cached_store(const ExpertCatalogue& catalogue,
                                               const CacheOptions& options,
                                               const MakeReader& make_reader = {});

}  // namespace winnow::experts

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Shares work over the columns of the experts' slots out to threads.
#pragma once

#include <cstddef>

#include "engine/observer.h"
#include "os/thread_pool.h"

namespace winnow::compress {

/// Calls body(expert, slots, columns): every expert that was chosen with every range of `columns`,
/// ranges of one expert by different threads.
template <typename Body>
void for_expert_columns(os::ThreadPool& pool, const engine::ExpertSlots& slots, std::size_t columns,
                        const Body& body) {
  constexpr std::size_t kColumns = 256;  // two f64 sums of so many fit the first cache
  const std::size_t parts = (columns + kColumns - 1) / kColumns;
  pool.run(slots.experts.size() * parts, [&](std::size_t item, unsigned) {
    const std::size_t i = item / parts;
    body(static_cast<std::size_t>(index(slots.experts[i])),
         os::Range{slots.first[i], slots.first[i + 1]}, os::split(columns, parts, item % parts));
  });
}

}  // namespace winnow::compress

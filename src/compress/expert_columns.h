// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Shares sums over columns out to threads, and hands rows to the kernels in stretches: the sums of
// a column run over tokens in their order, so neither changes a bit.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

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

/// Asks for `n` values before they are needed: rows lie far apart and are read once, so the sums
/// would wait for memory most of the time.
inline void prefetch(const float* row, std::size_t n) {
  constexpr std::size_t kLine = 64 / sizeof(float);
  for (std::size_t j = 0; j < n; j += kLine) __builtin_prefetch(row + j);
}

/// Calls body(rows, first, count) for stretches of `range`, in order; rows[i] is row_of(first + i),
/// of which `width` values are read.
template <typename RowOf, typename Body>
void for_row_stretches(os::Range range, std::size_t width, const RowOf& row_of, const Body& body) {
  constexpr std::size_t kRows = 16;  // two stretches of 256 columns and their sums: 40 KiB
  const float* rows[kRows];
  for (std::size_t first = range.begin; first < range.end; first += kRows) {
    const std::size_t count = std::min(kRows, range.end - first);
    for (std::size_t i = 0; i < count; ++i) rows[i] = row_of(first + i);
    const std::size_t next_end = std::min(first + 2 * kRows, range.end);
    for (std::size_t next = first + kRows; next < next_end; ++next) prefetch(row_of(next), width);
    body(static_cast<const float* const*>(rows), first, count);
  }
}

/// Squares of router weights, into `squares`.
inline void square_weights(std::span<const float> weights, std::vector<double>& squares) {
  squares.resize(weights.size());
  std::transform(weights.begin(), weights.end(), squares.begin(),
                 [](float weight) { return double{weight} * double{weight}; });
}

}  // namespace winnow::compress

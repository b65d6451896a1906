// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How the scratch memory of one thread is divided while it computes attention.
#pragma once

#include <cstddef>

#include "kernels/detail/scratch.h"
#include "kernels/key_values.h"

namespace winnow::kernels::detail {

/// Positions between two looks at the largest score. Fixed, and counted from position 0, because
/// the order of the sums follows from it. A tile's keys and values, its queries and their sums,
/// 130 KiB with heads of 128, stay in a second-level cache.
inline constexpr std::size_t kKeyTile = 64;
/// Lanes of the widest ISA.
inline constexpr std::size_t kMaxLanes = 16;

struct AttentionScratch {
  std::byte* keys;    ///< a tile's strips in the layout of F32
  std::byte* values;  ///< the same
  float* queries;     ///< [kAttentionRows, head_dim], scaled
  float* out;         ///< [kAttentionRows, padded_dim]: weighted values so far
  float* weights;     ///< [4 rows, kKeyTile]: scores, then weights
  float* sums;        ///< [kAttentionRows, kMaxLanes]: sums of weights, per lane
  float* largest;     ///< [kAttentionRows]: largest score so far

  /// `layout` is that of F32.
  static std::size_t tile_bytes(const KvLayout& layout) {
    return align_scratch(kKeyTile / KvLayout::kStrip * layout.strip_bytes());
  }
  static std::size_t row_bytes(const KvLayout& layout) {
    return float_bytes(kAttentionRows * layout.padded_dim());
  }
  static std::size_t bytes(const KvLayout& layout) {
    return 2 * tile_bytes(layout) + 2 * row_bytes(layout) + float_bytes(4 * kKeyTile) +
           float_bytes(kAttentionRows * kMaxLanes) + float_bytes(kAttentionRows);
  }
  static AttentionScratch divide(std::byte* scratch, const KvLayout& layout) {
    AttentionScratch parts{};
    const auto take = [&](std::size_t count) {
      std::byte* part = scratch;
      scratch += count;
      return part;
    };
    const auto floats = [&](std::size_t count) { return reinterpret_cast<float*>(take(count)); };
    parts.keys = take(tile_bytes(layout));
    parts.values = take(tile_bytes(layout));
    parts.queries = floats(row_bytes(layout));
    parts.out = floats(row_bytes(layout));
    parts.weights = floats(float_bytes(4 * kKeyTile));
    parts.sums = floats(float_bytes(kAttentionRows * kMaxLanes));
    parts.largest = floats(float_bytes(kAttentionRows));
    return parts;
  }
};

}  // namespace winnow::kernels::detail

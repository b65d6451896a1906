// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// softmax(q K^T) V with a running maximum over tiles of keys (arXiv:1805.02867, arXiv:2205.14135),
// written with the words of the ISA whose namespace includes it.
//
// Scores: a vector holds one element of kLanes keys (strips are transposed), so the score of a
// query and a key is one chain of fused multiply-adds along head_dim. Values: a vector holds kLanes
// elements of one value, and an element of the result is one chain along the positions, multiplied
// by exp(old - new maximum) between tiles. Tiles are counted from position 0 and a query stops at
// its last visible position, so a result depends on nothing but its own query, keys and values,
// whatever rows are computed beside it.
//
// A block of 4, 2 or 1 queries keeps up to kAttentionSums sums in registers, every key or value
// vector loaded serves all of them. Few queries read the stored form where it is: limited by
// memory, so each tile's scores ask for its values, and its values for the next tile's keys, which
// have the same layout. Many queries share a tile that is converted to f32 in scratch memory, at
// about 2 / kAttentionRows of the work: limited by the multiply-adds.

#include "kernels/detail/exponential.inl"

constexpr std::size_t kStripVectors = KvLayout::kStrip / kLanes;
constexpr std::size_t kBlockVectors = KvLayout::kBlock / kLanes;
constexpr std::size_t kTileStrips = detail::kKeyTile / KvLayout::kStrip;

/// Queries up to which the stored form is read anew for each block of 4. With 8 queries on 128 keys
/// of F16 in the first-level cache (Zen 5): 180 Gflop/s so, 129 by way of scratch memory; 4 queries
/// from memory 30 GB/s, and 16 without asking ahead.
constexpr std::size_t kInPlaceRows = 16;

/// How to read a strip. `index` counts elements from the strip's first, d0 along head_dim.
struct FloatStorage {
  static constexpr std::size_t kBytes = 4;  ///< of an element
  static constexpr bool kAhead = true;      ///< whether to ask for what comes next
  struct Scale {};
  WINNOW_INLINE static Scale key_scale(const KvLayout&, const std::byte*, std::size_t) {
    return {};
  }
  WINNOW_INLINE static Scale value_scale(const KvLayout&, const std::byte*, std::size_t) {
    return {};
  }
  WINNOW_INLINE static Floats read(const std::byte* strip, std::size_t index, Scale) {
    return load(reinterpret_cast<const float*>(strip) + index);
  }
};

/// F32 that is in a cache already.
struct CachedStorage : FloatStorage {
  static constexpr bool kAhead = false;
};

struct HalfStorage : FloatStorage {
  static constexpr std::size_t kBytes = 2;
  WINNOW_INLINE static Floats read(const std::byte* strip, std::size_t index, Scale) {
    return load_f16(strip + 2 * index);
  }
};

struct CodeStorage {
  static constexpr std::size_t kBytes = 1;
  static constexpr bool kAhead = true;
  using Scale = Floats;
  /// Scales `index` ... index + kLanes - 1: those of as many keys.
  WINNOW_INLINE static Scale key_scale(const KvLayout& layout, const std::byte* strip,
                                       std::size_t index) {
    return load_f16(strip + layout.scales_offset() + 2 * index);
  }
  WINNOW_INLINE static Scale value_scale(const KvLayout& layout, const std::byte* strip,
                                         std::size_t index) {
    return broadcast_f16(strip + layout.scales_offset() + 2 * index);
  }
  WINNOW_INLINE static Floats read(const std::byte* strip, std::size_t index, Scale scale) {
    return mul(to_floats(widen_codes(strip + index)), scale);
  }
};

/// Asks for the line at `p`, which may be anywhere, in the second-level cache.
template <typename Storage>
WINNOW_INLINE void ask_for(const std::byte* p) {
  if (Storage::kAhead) __builtin_prefetch(p, 0, 2);
}

/// Writes the scores of kRows queries [kRows, head_dim] with kStrips strips of keys.
template <typename Storage, std::size_t kRows, std::size_t kStrips>
WINNOW_INLINE void score_strips(const KvLayout& layout, const std::byte* keys,
                                const std::byte* next, const float* queries, float* scores) {
  Floats sums[kRows][kStrips * kStripVectors];
  for (auto& of_row : sums) {
    for (auto& sum : of_row) sum = broadcast(0.0F);
  }
  const std::size_t strip_bytes = layout.strip_bytes();
  for (std::size_t begin = 0; begin < layout.head_dim; begin += KvLayout::kBlock) {
    const std::size_t rest = layout.head_dim - begin;
    const std::size_t end = begin + (rest < KvLayout::kBlock ? rest : KvLayout::kBlock);
    typename Storage::Scale scales[kStrips * kStripVectors];
    for (std::size_t v = 0; v < kStrips * kStripVectors; ++v) {
      const std::size_t lane = v % kStripVectors * kLanes;
      scales[v] = Storage::key_scale(layout, keys + v / kStripVectors * strip_bytes,
                                     KvLayout::key_scale_index(lane, begin));
    }
    for (std::size_t d = begin; d < end; ++d) {
      for (std::size_t v = 0; v < kStrips * kStripVectors; ++v) {
        const std::size_t lane = v % kStripVectors * kLanes;
        const std::size_t strip = v / kStripVectors * strip_bytes;
        const std::size_t at = KvLayout::key_index(lane, d);
        const Floats key = Storage::read(keys + strip, at, scales[v]);
        ask_for<Storage>(next + strip + at * Storage::kBytes);
        for (std::size_t r = 0; r < kRows; ++r) {
          sums[r][v] = fma(broadcast(queries[r * layout.head_dim + d]), key, sums[r][v]);
        }
      }
    }
  }
  for (std::size_t r = 0; r < kRows; ++r) {
    for (std::size_t v = 0; v < kStrips * kStripVectors; ++v) {
      store(scores + r * detail::kKeyTile + v * kLanes, sums[r][v]);
    }
  }
}

template <typename Storage, std::size_t kRows>
void score_tile(const KvLayout& layout, const std::byte* keys, const std::byte* next,
                std::size_t strips, const float* queries, float* scores) {
  constexpr std::size_t kFit = kAttentionSums / kRows / kStripVectors;
  constexpr std::size_t kStrips = kFit < kTileStrips ? kFit : kTileStrips;
  std::size_t s = 0;
  for (; s + kStrips <= strips; s += kStrips) {
    score_strips<Storage, kRows, kStrips>(layout, keys + s * layout.strip_bytes(),
                                          next + s * layout.strip_bytes(), queries,
                                          scores + s * KvLayout::kStrip);
  }
  for (; s < strips; ++s) {
    score_strips<Storage, kRows, 1>(layout, keys + s * layout.strip_bytes(),
                                    next + s * layout.strip_bytes(), queries,
                                    scores + s * KvLayout::kStrip);
  }
}

/// d is a multiple of kVectors * kLanes, so vectors with one scale begin where v % kBlockVectors ==
/// 0. out[kRows, kVectors vectors] += weights[kRows, first ... end) * values of those positions.
template <typename Storage, std::size_t kRows, std::size_t kVectors>
WINNOW_INLINE void add_columns(const KvLayout& layout, const std::byte* values,
                               const std::byte* next, std::size_t first, std::size_t end,
                               const float* weights, float* out, std::size_t d) {
  const std::size_t stride = layout.padded_dim();
  const std::size_t strip_bytes = layout.strip_bytes();
  Floats sums[kRows][kVectors];
  for (std::size_t r = 0; r < kRows; ++r) {
    for (std::size_t v = 0; v < kVectors; ++v) sums[r][v] = load(out + r * stride + v * kLanes);
  }
  for (std::size_t key = first; key < end; ++key) {
    const std::size_t offset = key / KvLayout::kStrip * strip_bytes;
    const std::byte* strip = values + offset;
    const std::size_t lane = key % KvLayout::kStrip;
    typename Storage::Scale scale;
    for (std::size_t v = 0; v < kVectors; ++v) {
      const std::size_t at = d + v * kLanes;
      if (v % kBlockVectors == 0) {
        scale = Storage::value_scale(layout, strip, layout.value_scale_index(lane, at));
      }
      const Floats value = Storage::read(strip, layout.value_index(lane, at), scale);
      ask_for<Storage>(next + offset + layout.value_index(lane, at) * Storage::kBytes);
      for (std::size_t r = 0; r < kRows; ++r) {
        sums[r][v] = fma(broadcast(weights[r * detail::kKeyTile + key]), value, sums[r][v]);
      }
    }
  }
  for (std::size_t r = 0; r < kRows; ++r) {
    for (std::size_t v = 0; v < kVectors; ++v) store(out + r * stride + v * kLanes, sums[r][v]);
  }
}

template <typename Storage, std::size_t kRows>
void add_values(const KvLayout& layout, const std::byte* values, const std::byte* next,
                std::size_t first, std::size_t end, const float* weights, float* out) {
  constexpr std::size_t kMost = 8;  // all of a head of 128 with AVX-512
  constexpr std::size_t kFit = kAttentionSums / kRows;
  constexpr std::size_t kVectors = kFit < kMost ? kFit : kMost;
  const std::size_t vectors = layout.padded_dim() / kLanes;
  std::size_t v = 0;
  for (; v + kVectors <= vectors; v += kVectors) {
    add_columns<Storage, kRows, kVectors>(layout, values, next, first, end, weights,
                                          out + v * kLanes, v * kLanes);
  }
  for (; v < vectors; ++v) {
    add_columns<Storage, kRows, 1>(layout, values, next, first, end, weights, out + v * kLanes,
                                   v * kLanes);
  }
}

/// Makes scores [visible] weights relative to the largest score so far, to which the sums of
/// earlier tiles are brought. Lanes beyond `visible` get the weight 0.
inline void weigh_tile(std::size_t visible, std::size_t padded_dim, float* scores, float* sums,
                       float* largest, float* out) {
  Floats most = broadcast(*largest);
  std::size_t i = 0;
  for (; i + kLanes <= visible; i += kLanes) most = max(most, load(scores + i));
  if (i < visible) {
    const Floats none = broadcast(-std::numeric_limits<float>::infinity());
    store(scores + i, load_first_or(scores + i, visible - i, none));
    most = max(most, load(scores + i));
  }
  const float now = reduce_max(most);
  Floats sum = load(sums);
  if (now != *largest) {
    const Floats correction = exp(broadcast(*largest - now));
    sum = mul(sum, correction);
    for (std::size_t d = 0; d < padded_dim; d += kLanes) {
      store(out + d, mul(load(out + d), correction));
    }
    *largest = now;
  }
  for (i = 0; i < visible; i += kLanes) {
    const Floats weight = exp(sub(load(scores + i), broadcast(now)));
    store(scores + i, weight);
    sum = add(sum, weight);
  }
  store(sums, sum);
}

/// Some rows of a task with one tile of keys.
struct TileTask {
  KvLayout layout;  ///< of the tile, which may have been converted
  const std::byte* keys;
  const std::byte* values;
  const std::byte* next_keys;  ///< of the next tile, or anything of the same size
  detail::AttentionScratch scratch;
};

/// visible[r]: positions of the tile that row r sees, 1 to kKeyTile, not decreasing.
template <typename Storage, std::size_t kRows>
void attend_block(const TileTask& tile, std::size_t row, const std::size_t* visible) {
  const KvLayout& layout = tile.layout;
  const std::size_t padded = layout.padded_dim();
  float* weights = tile.scratch.weights;
  float* out = tile.scratch.out + row * padded;
  const std::size_t strips = (visible[kRows - 1] + KvLayout::kStrip - 1) / KvLayout::kStrip;
  score_tile<Storage, kRows>(layout, tile.keys, tile.values, strips,
                             tile.scratch.queries + row * layout.head_dim, weights);
  for (std::size_t r = 0; r < kRows; ++r) {
    weigh_tile(visible[r], padded, weights + r * detail::kKeyTile,
               tile.scratch.sums + (row + r) * detail::kMaxLanes, tile.scratch.largest + row + r,
               out + r * padded);
  }
  add_values<Storage, kRows>(layout, tile.values, tile.next_keys, 0, visible[0], weights, out);
  for (std::size_t r = 1; r < kRows; ++r) {
    if (visible[r] == visible[0]) continue;
    add_values<Storage, 1>(layout, tile.values, tile.next_keys, visible[0], visible[r],
                           weights + r * detail::kKeyTile, out + r * padded);
  }
}

/// Rows [row, rows) of the tile that begins at position `begin`; row r sees visible[r] positions.
template <typename Storage>
void attend_tile(const TileTask& tile, std::size_t rows, std::size_t begin,
                 const std::size_t* visible) {
  std::size_t row = 0;
  while (row < rows && visible[row] <= begin) ++row;
  while (row < rows) {
    std::size_t here[4];
    const std::size_t left = rows - row;
    const std::size_t block = left >= 4 ? 4 : left >= 2 ? 2 : 1;
    for (std::size_t r = 0; r < block; ++r) {
      const std::size_t n = visible[row + r] - begin;
      here[r] = n < detail::kKeyTile ? n : detail::kKeyTile;
    }
    if (block == 4) {
      attend_block<Storage, 4>(tile, row, here);
    } else if (block == 2) {
      attend_block<Storage, 2>(tile, row, here);
    } else {
      attend_block<Storage, 1>(tile, row, here);
    }
    row += block;
  }
}

/// `strips` strips of keys and values as F32 in scratch memory.
template <typename Storage>
void expand_strips(const AttentionTask& task, std::size_t first, std::size_t strips,
                   const KvLayout& floats, const detail::AttentionScratch& scratch) {
  const KvLayout& layout = task.layout;
  for (std::size_t s = 0; s < strips; ++s) {
    const std::byte* keys = task.keys + (first + s) * layout.strip_bytes();
    const std::byte* values = task.values + (first + s) * layout.strip_bytes();
    auto* key_floats = reinterpret_cast<float*>(scratch.keys + s * floats.strip_bytes());
    auto* value_floats = reinterpret_cast<float*>(scratch.values + s * floats.strip_bytes());
    for (std::size_t d = 0; d < layout.head_dim; ++d) {
      for (std::size_t lane = 0; lane < KvLayout::kStrip; lane += kLanes) {
        const std::size_t at = KvLayout::key_index(lane, d);
        const auto scale = Storage::key_scale(layout, keys, KvLayout::key_scale_index(lane, d));
        store(key_floats + at, Storage::read(keys, at, scale));
      }
    }
    for (std::size_t lane = 0; lane < KvLayout::kStrip; ++lane) {
      for (std::size_t d = 0; d < layout.padded_dim(); d += kLanes) {
        const std::size_t at = layout.value_index(lane, d);
        const auto scale = Storage::value_scale(layout, values, layout.value_scale_index(lane, d));
        store(value_floats + at, Storage::read(values, at, scale));
      }
    }
  }
}

/// Where row r's query and result are.
inline std::size_t row_offset(const AttentionTask& task, std::size_t r) {
  return r / task.group * task.token_stride + r % task.group * task.layout.head_dim;
}

inline void begin_rows(const AttentionTask& task, std::size_t first, std::size_t rows,
                       const detail::AttentionScratch& scratch) {
  const std::size_t dim = task.layout.head_dim;
  for (std::size_t r = 0; r < rows; ++r) {
    const float* query = task.queries + row_offset(task, first + r);
    for (std::size_t d = 0; d < dim; ++d) scratch.queries[r * dim + d] = query[d] * task.scale;
    scratch.largest[r] = -std::numeric_limits<float>::infinity();
    store(scratch.sums + r * detail::kMaxLanes, broadcast(0.0F));
  }
  std::memset(scratch.out, 0, rows * task.layout.padded_dim() * sizeof(float));
}

inline void finish_rows(const AttentionTask& task, std::size_t first, std::size_t rows,
                        const detail::AttentionScratch& scratch) {
  const std::size_t dim = task.layout.head_dim;
  for (std::size_t r = 0; r < rows; ++r) {
    const Floats sum = broadcast(reduce_add(load(scratch.sums + r * detail::kMaxLanes)));
    const float* values = scratch.out + r * task.layout.padded_dim();
    float* out = task.out + row_offset(task, first + r);
    for (std::size_t d = 0; d < dim; d += kLanes) {
      store_first(out + d, div(load(values + d), sum), dim - d < kLanes ? dim - d : kLanes);
    }
  }
}

/// Rows [first, first + rows) of the task, rows <= kAttentionRows.
template <typename Storage>
void attend_rows(const AttentionTask& task, std::size_t first, std::size_t rows,
                 std::byte* memory) {
  const KvLayout floats{KvType::kF32, task.layout.head_dim};
  const auto scratch = detail::AttentionScratch::divide(memory, floats);
  begin_rows(task, first, rows, scratch);
  std::size_t visible[kAttentionRows];
  for (std::size_t r = 0; r < rows; ++r) visible[r] = task.visible + (first + r) / task.group;
  const std::size_t end = visible[rows - 1];
  const bool few = rows <= kInPlaceRows;
  const std::byte* after = task.upcoming != nullptr ? task.upcoming : task.keys;
  const std::size_t tile_bytes = kTileStrips * task.layout.strip_bytes();
  for (std::size_t begin = 0; begin < end; begin += detail::kKeyTile) {
    const std::size_t strip = begin / KvLayout::kStrip;
    if (few || task.layout.type == KvType::kF32) {
      const std::size_t offset = strip * task.layout.strip_bytes();
      const TileTask tile{task.layout, task.keys + offset, task.values + offset,
                          begin + detail::kKeyTile < end ? task.keys + offset + tile_bytes : after,
                          scratch};
      few ? attend_tile<Storage>(tile, rows, begin, visible)
          : attend_tile<CachedStorage>(tile, rows, begin, visible);
    } else {
      const std::size_t left = (end - begin + KvLayout::kStrip - 1) / KvLayout::kStrip;
      expand_strips<Storage>(task, strip, left < kTileStrips ? left : kTileStrips, floats, scratch);
      const TileTask tile{floats, scratch.keys, scratch.values, scratch.keys, scratch};
      attend_tile<CachedStorage>(tile, rows, begin, visible);
    }
  }
  finish_rows(task, first, rows, scratch);
}

template <typename Storage>
void attend_all(const AttentionTask& task, std::byte* scratch) {
  const std::size_t rows = task.tokens * task.group;
  for (std::size_t first = 0; first < rows; first += kAttentionRows) {
    const std::size_t left = rows - first;
    attend_rows<Storage>(task, first, left < kAttentionRows ? left : kAttentionRows, scratch);
  }
}

void attend(const AttentionTask& task, std::byte* scratch) noexcept {
  switch (task.layout.type) {
    case KvType::kF32:
      return attend_all<FloatStorage>(task, scratch);
    case KvType::kF16:
      return attend_all<HalfStorage>(task, scratch);
    case KvType::kQ8_0:
      return attend_all<CodeStorage>(task, scratch);
  }
}

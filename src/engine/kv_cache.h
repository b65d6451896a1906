// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Keys and values of one sequence, all layers.
#pragma once

#include <cstddef>

#include "base/units.h"
#include "kernels/key_values.h"
#include "model/spec.h"
#include "os/aligned_buffer.h"

namespace winnow::engine {

/// Room for `capacity` positions, laid out [layer][key or value][head][strips of positions] (see
/// kernels::KvLayout), so that attention reads one head's history as two streams. Pages are taken
/// as they are written.
class KvCache {
 public:
  /// capacity: in [1, spec.max_position_embeddings]. Throws Error{kSystem} without memory.
  KvCache(const model::ModelSpec& spec, std::size_t capacity,
          kernels::KvType type = kernels::KvType::kF32);

  /// Of one layer only.
  KvCache(const model::ModelSpec& spec, LayerId layer, std::size_t capacity,
          kernels::KvType type = kernels::KvType::kF32);

  std::size_t capacity() const { return capacity_; }
  /// Positions filled; the next token has this position.
  std::size_t length() const { return length_; }
  /// Forgets positions from `length` on (0 forgets the sequence).
  void truncate(std::size_t length);
  /// Called by the engine once all layers of a batch are done.
  void advance(std::size_t tokens);

  const kernels::KvLayout& layout() const { return layout_; }
  /// Strips of one head.
  std::byte* keys(LayerId layer, std::size_t head) { return at(layer, 0, head); }
  std::byte* values(LayerId layer, std::size_t head) { return at(layer, 1, head); }
  Bytes memory() const { return {buffer_.size()}; }

 private:
  /// Layers [first, first + count).
  KvCache(const model::ModelSpec& spec, std::uint32_t first, std::uint32_t count,
          std::size_t capacity, kernels::KvType type);
  std::byte* at(LayerId layer, std::size_t which, std::size_t head);

  kernels::KvLayout layout_;
  std::size_t heads_;
  std::uint32_t first_layer_;
  std::uint32_t num_layers_;
  std::size_t capacity_;
  std::size_t head_bytes_ = 0;
  std::size_t length_ = 0;
  os::AlignedBuffer buffer_;
};

/// Memory of a KvCache. Throws Error{kSystem} when it is beyond any machine's.
Bytes kv_cache_memory(const model::ModelSpec& spec, std::uint32_t layers, std::size_t capacity,
                      kernels::KvType type);

/// Bytes of keys and values of one position in all layers.
std::uint64_t kv_bytes_per_position(const model::ModelSpec& spec, kernels::KvType type);

}  // namespace winnow::engine

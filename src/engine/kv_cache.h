// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Keys and values of one sequence, all layers.
#pragma once

#include <cstddef>
#include <span>

#include "base/units.h"
#include "model/spec.h"
#include "os/aligned_buffer.h"

namespace winnow::engine {

/// Room for `capacity` positions in F32, laid out [layer][key or value][head][position][head_dim],
/// so that attention reads one head's history as one stream. Pages are taken as they are written.
class KvCache {
 public:
  /// capacity: in [1, spec.max_position_embeddings]. Throws Error{kSystem} without memory.
  KvCache(const model::ModelSpec& spec, std::size_t capacity);

  std::size_t capacity() const { return capacity_; }
  /// Positions filled; the next token has this position.
  std::size_t length() const { return length_; }
  /// Forgets positions from `length` on (0 forgets the sequence).
  void truncate(std::size_t length);
  /// Called by the engine once all layers of a batch are done.
  void advance(std::size_t tokens);

  /// [capacity, head_dim] rows of one head; row p belongs to position p.
  float* keys(LayerId layer, std::size_t head) { return at(layer, 0, head); }
  float* values(LayerId layer, std::size_t head) { return at(layer, 1, head); }
  Bytes memory() const { return {buffer_.size()}; }

 private:
  float* at(LayerId layer, std::size_t which, std::size_t head);

  std::size_t heads_;
  std::size_t head_dim_;
  std::size_t capacity_;
  std::size_t length_ = 0;
  os::AlignedBuffer buffer_;
};

}  // namespace winnow::engine

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Packed rows of random weights to draw from. Encoding billions of weights would take hours for
// some types; drawing rows from a few thousand takes as long as writing them, and no engine's speed
// can tell the difference: every row has its own place in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "os/thread_pool.h"
#include "quant/codec.h"

namespace winnow::tools {

class RowPool {
 public:
  /// Encodes `rows` rows of `cols` weights, normal with this standard deviation, in parallel; the
  /// same for the same seed, whatever the threads. `cols` is a multiple of the codec's block.
  RowPool(const quant::Codec& codec, std::size_t rows, std::size_t cols, double deviation,
          std::uint64_t seed, os::ThreadPool& pool);

  std::size_t rows() const { return packed_.size() / row_bytes_; }
  std::size_t row_bytes() const { return row_bytes_; }
  /// Row `index`, below rows().
  std::span<const std::byte> row(std::size_t index) const {
    return std::span(packed_).subspan(index * row_bytes_, row_bytes_);
  }

 private:
  std::size_t row_bytes_;
  std::vector<std::byte> packed_;
};

}  // namespace winnow::tools

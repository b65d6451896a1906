// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "speed_model/row_pool.h"

#include "base/error.h"
#include "base/rng.h"

namespace winnow::tools {

RowPool::RowPool(const quant::Codec& codec, std::size_t rows, std::size_t cols, double deviation,
                 std::uint64_t seed, os::ThreadPool& pool)
    : row_bytes_(cols / codec.block_size * codec.block_bytes), packed_(rows * row_bytes_) {
  WINNOW_CHECK(cols % codec.block_size == 0);
  pool.run(rows, [&](std::size_t row, unsigned) {
    Rng rng(seed + row);  // one per row, so that no thread waits for another's numbers
    std::vector<float> weights(cols);
    for (float& weight : weights) weight = static_cast<float>(deviation * rng.normal());
    codec.encode(weights.data(), cols / codec.block_size, nullptr,
                 packed_.data() + row * row_bytes_);
  });
}

}  // namespace winnow::tools

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The sum of a stretch of memory, for measuring how fast it is read (detail/read_probe.inl).
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/kernels.h"

namespace winnow::kernels::scalar {

std::uint64_t read_probe(const std::byte* data, std::size_t size) noexcept {
  // Eight sums, so that no load waits for an addition.
  std::uint64_t sums[8] = {};
  for (std::size_t i = 0; i < size; i += sizeof sums) {
    std::uint64_t words[8];
    std::memcpy(words, data + i, sizeof words);
    for (std::size_t j = 0; j < 8; ++j) sums[j] += words[j];
  }
  std::uint64_t total = 0;
  for (const std::uint64_t sum : sums) total += sum;
  return total;
}

}  // namespace winnow::kernels::scalar

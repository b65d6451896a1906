// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// int8 products as the compiler makes them for the baseline processor, for measuring its peak.
#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"

namespace winnow::kernels::scalar {

std::uint64_t int8_probe(std::uint64_t steps) noexcept {
  constexpr std::size_t kCodes = 256;
  std::int8_t x[kCodes];
  std::int8_t w[kCodes];
  for (std::size_t i = 0; i < kCodes; ++i) {
    x[i] = static_cast<std::int8_t>(i);
    w[i] = static_cast<std::int8_t>(i * 7);
  }
  for (std::uint64_t step = 0; step < steps; ++step) {
    std::int32_t sum = 0;
    for (std::size_t i = 0; i < kCodes; ++i) sum += x[i] * w[i];
    x[step % kCodes] = static_cast<std::int8_t>(sum);  // the next step depends on this one
  }
  volatile std::int8_t used = x[0];
  (void)used;
  return steps * kCodes * 2;
}

}  // namespace winnow::kernels::scalar

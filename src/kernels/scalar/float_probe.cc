// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// f32 products and sums as the compiler makes them for the baseline processor.
#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"

namespace winnow::kernels::scalar {

std::uint64_t float_probe(std::uint64_t steps) noexcept {
  constexpr std::size_t kSums = 32;
  volatile float unknown = 0.5F;
  const float x = unknown;
  float w[kSums];
  float sums[kSums];
  for (std::size_t i = 0; i < kSums; ++i) {
    sums[i] = static_cast<float>(i);
    w[i] = unknown;
  }
  for (std::uint64_t step = 0; step < steps; ++step) {
    for (std::size_t i = 0; i < kSums; ++i) sums[i] += x * w[i];
  }
  float total = 0;
  for (const float sum : sums) total += sum;
  unknown = total;
  return steps * kSums * 2;
}

}  // namespace winnow::kernels::scalar

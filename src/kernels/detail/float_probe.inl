// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The ISA's f32 multiply-add as fast as registers allow, for measuring the machine's peak. Twelve
// independent sums hide its latency (4 cycles on most processors, at most two begin in a cycle).

std::uint64_t float_probe(std::uint64_t steps) noexcept {
  constexpr std::size_t kSums = 12;
  volatile float unknown = 0.5F;  // or the compiler would know the sums
  const Floats x = broadcast(unknown);
  const Floats w = broadcast(unknown);
  Floats sums[kSums];
  for (std::size_t i = 0; i < kSums; ++i) sums[i] = broadcast(static_cast<float>(i));
  for (std::uint64_t step = 0; step < steps; ++step) {
    for (Floats& sum : sums) sum = fma(x, w, sum);
  }
  float total = 0;
  for (const Floats& sum : sums) total += reduce_add(sum);
  unknown = total;
  return steps * kSums * kLanes * 2;
}

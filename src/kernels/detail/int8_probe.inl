// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The ISA's integer dot product as fast as registers allow, for measuring the machine's peak.
// Eight independent sums hide the latency of the one instruction in the chain (4-5 cycles of
// VNNI's, at most two of which begin in a cycle) and, with the operands, fit 16 registers.

std::uint64_t int8_probe(std::uint64_t steps) noexcept {
  constexpr std::size_t kSums = 8;
  Ints sums[kSums];
  for (Ints& sum : sums) sum = zero_ints();
  Ints x = zero_ints();
  Ints w = zero_ints();
  keep(w);  // or the compiler would know the product
  for (std::uint64_t step = 0; step < steps; ++step) {
    for (Ints& sum : sums) {
      keep(x);  // as if it had changed: the product cannot leave the loop
      sum = add_dot_u8i8(sum, x, w);
    }
  }
  for (Ints& sum : sums) keep(sum);
  return steps * kSums * kRegisterCodes * 2;
}

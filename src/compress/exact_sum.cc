// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Expansions: sums kept as several f64 whose bits do not overlap (Shewchuk, "Adaptive precision
// floating-point arithmetic", 1997).
#include "compress/exact_sum.h"

namespace winnow::compress {
namespace {

/// Adds x to an expansion, smallest part first; zeros are left out.
void grow(std::vector<double>& expansion, double x) {
  std::size_t kept = 0;
  for (const double part : expansion) {
    const TwoSum sum = two_sum(x, part);
    if (sum.error != 0) expansion[kept++] = sum.error;
    x = sum.sum;
  }
  expansion.resize(kept);
  if (x != 0) expansion.push_back(x);
}

/// The sum of an expansion, correctly rounded: the parts from the top on until one changes the sum
/// no more; a tie is then broken by the sign of the next.
double rounded(std::span<const double> expansion) {
  std::size_t next = expansion.size() - 1;
  TwoSum sum{expansion[next], 0};
  while (next > 0 && sum.error == 0) sum = two_sum(sum.sum, expansion[--next]);
  if (next == 0 || sum.error == 0) return sum.sum;
  const bool same_side = (sum.error < 0) == (expansion[next - 1] < 0);
  const double doubled = 2 * sum.error;
  const double other = sum.sum + doubled;
  return same_side && other - sum.sum == doubled ? other : sum.sum;
}

}  // namespace

std::vector<double> exact_parts(std::span<const double> terms) {
  std::vector<double> expansion;
  for (const double term : terms) grow(expansion, term);
  std::vector<double> parts;
  while (!expansion.empty()) {
    parts.push_back(rounded(expansion));
    grow(expansion, -parts.back());
  }
  return parts;
}

}  // namespace winnow::compress

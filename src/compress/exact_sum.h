// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Sums whose bits depend on which terms were added and not on their order, so that statistics cut
// into pieces anywhere between two units add up to the same file.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace winnow::compress {

/// x rounded to 42 significant bits, ties to even (Veltkamp's splitting): 2.3e-13 of x at most.
/// Two f64 hold any sum of terms of so few bits, as long as it stays below 2^63 times the smallest.
inline double to_42_bits(double x) {
  const double c = x * 2049.0;  // 2^11 + 1: 53 - 11 bits are left
  return c - (c - x);
}

/// a + b = sum + error, exactly (Knuth's TwoSum).
struct TwoSum {
  double sum;
  double error;
};
inline TwoSum two_sum(double a, double b) {
  const double sum = a + b;
  const double b_in_sum = sum - a;
  return {sum, (a - (sum - b_in_sum)) + (b - b_in_sum)};
}

/// total + residual is the sum, total its rounding to f64; x is added to it. Returns what the two
/// did not hold: 0 but where magnitudes are very far apart.
[[nodiscard]] inline double add_exactly(double& total, double& residual, double x) {
  const TwoSum first = two_sum(total, x);
  const TwoSum second = two_sum(residual, first.error);
  const TwoSum last = two_sum(first.sum, second.sum);
  total = last.sum;
  residual = last.error;
  return second.error;
}

/// The exact sum of any finite terms as f64 parts: the first is the sum rounded, each next one what
/// the parts before it leave, rounded; none is zero. So the parts depend on the sum alone.
std::vector<double> exact_parts(std::span<const double> terms);

}  // namespace winnow::compress

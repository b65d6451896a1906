// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Sums whose bits depend on which terms were added and not on their order, so that statistics cut
// into pieces anywhere between two units add up to the same file.
#pragma once

#include <cstddef>
#include <span>

namespace winnow::compress {

/// x rounded to 42 significant bits, ties to even (Veltkamp's splitting): 2.3e-13 of x at most.
/// Terms of so few bits add up in two f64 without any rounding, as long as the largest sum is less
/// than 2^64 of the last place of the smallest term.
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

/// total + residual is the exact sum, total its rounding to f64; x is added to it.
inline void add_exactly(double& total, double& residual, double x) {
  const TwoSum first = two_sum(total, x);
  const TwoSum last = two_sum(first.sum, residual + first.error);
  total = last.sum;
  residual = last.error;
}

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/kendall_tau.h"

#include <cmath>
#include <cstdint>

#include "base/error.h"

namespace winnow::compress {

double kendall_tau(std::span<const double> a, std::span<const double> b) {
  WINNOW_CHECK(a.size() == b.size());
  std::int64_t agreement = 0;
  std::int64_t ordered_by_a = 0;
  std::int64_t ordered_by_b = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      const int by_a = (a[i] > a[j]) - (a[i] < a[j]);
      const int by_b = (b[i] > b[j]) - (b[i] < b[j]);
      agreement += by_a * by_b;
      ordered_by_a += by_a != 0;
      ordered_by_b += by_b != 0;
    }
  }
  if (ordered_by_a == 0 || ordered_by_b == 0) return 0;
  // Two roots would give 1 - 2^-53 for some that agree wholly.
  return static_cast<double>(agreement) /
         std::sqrt(static_cast<double>(ordered_by_a) * static_cast<double>(ordered_by_b));
}

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A small random generator whose numbers are the same everywhere: the distributions of <random>
// differ between standard libraries.
#pragma once

#include <cstdint>

namespace winnow {

/// xoshiro256** (Blackman and Vigna 2018), seeded by splitmix64. Not for cryptography.
class Rng {
 public:
  explicit Rng(std::uint64_t seed);
  /// 64 uniform bits.
  std::uint64_t next();
  /// Uniform in [0, 1), 53 bits.
  double uniform();
  /// Uniform in [0, bound), bound >= 1; unbiased.
  std::uint64_t below(std::uint64_t bound);
  /// Standard normal (Box-Muller, one value per call).
  double normal();

 private:
  std::uint64_t state_[4];
};

}  // namespace winnow

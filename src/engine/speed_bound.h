// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How many tokens a second memory and disk allow when experts are read while running.
#pragma once

#include <cstdint>

namespace winnow::engine {

/// Bytes of one token, and what the machine does with bytes in a second.
struct SpeedTerms {
  double dense_bytes = 0;   ///< weights but the experts, keys and values
  double expert_bytes = 0;  ///< of the experts that the token uses: a token's cycle
  double hit_rate = 1;      ///< share of `expert_bytes` that is in memory, 0 to 1
  /// How often a byte that is read passes through memory before it is used: written once past the
  /// page cache; written, read and written again through it.
  double passes = 1;
  double memory_rate = 0;
  double disk_rate = 0;  ///< of reads as long as an expert
};

enum class SpeedLimit : std::uint8_t { kMemory, kDisk };

struct SpeedBound {
  double tokens_per_second = 0;
  SpeedLimit limit = SpeedLimit::kMemory;
};

/// When reading and computing overlap perfectly, and nothing is read in vain.
SpeedBound speed_bound(const SpeedTerms& terms);

}  // namespace winnow::engine

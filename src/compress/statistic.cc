// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/statistic.h"

#include <array>

namespace winnow::compress {

#define STATISTIC(family) extern const StatisticFamily family;
#include "compress/statistics/registry.def"
#undef STATISTIC

std::span<const StatisticFamily* const> all_statistics() {
  static constexpr std::array kAll = {
#define STATISTIC(family) &family,
#include "compress/statistics/registry.def"
#undef STATISTIC
  };
  return kAll;
}

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/speed_bound.h"

#include <gtest/gtest.h>

namespace winnow::engine::speed_bound_test {
namespace {

TEST(SpeedBound, IsTheMemorysWhenNothingIsRead) {
  const SpeedBound bound =
      speed_bound({.dense_bytes = 2e8, .expert_bytes = 3e8, .memory_rate = 1e10, .disk_rate = 0});
  EXPECT_DOUBLE_EQ(bound.tokens_per_second, 20);
  EXPECT_EQ(bound.limit, SpeedLimit::kMemory);
}

TEST(SpeedBound, IsTheDisksWhenMissesTakeLongest) {
  const SpeedBound bound = speed_bound({.dense_bytes = 2e8,
                                        .expert_bytes = 4e8,
                                        .hit_rate = 0.5,
                                        .memory_rate = 2e10,
                                        .disk_rate = 1e9});
  EXPECT_DOUBLE_EQ(bound.tokens_per_second, 5);
  EXPECT_EQ(bound.limit, SpeedLimit::kDisk);
}

TEST(SpeedBound, CountsWhatReadingDoesToTheMemory) {
  const SpeedTerms direct{.dense_bytes = 0,
                          .expert_bytes = 4e8,
                          .hit_rate = 0,
                          .passes = 1,
                          .memory_rate = 8e9,
                          .disk_rate = 1e12};
  EXPECT_DOUBLE_EQ(speed_bound(direct).tokens_per_second, 10);
  SpeedTerms buffered = direct;
  buffered.passes = 3;
  EXPECT_DOUBLE_EQ(speed_bound(buffered).tokens_per_second, 5);
}

}  // namespace
}  // namespace winnow::engine::speed_bound_test

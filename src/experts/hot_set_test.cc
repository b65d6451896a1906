// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/hot_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace winnow::experts::hot_set_test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr CacheShape kShape{.num_layers = 2, .num_experts = 4, .top_k = 1, .slots = 2};

ExpertUses uses(std::uint32_t layer, std::uint32_t expert, std::uint64_t count) {
  return {LayerId{layer}, ExpertId{expert}, count};
}
void count(HotSet& hot, std::uint32_t layer, std::uint32_t expert, int times) {
  for (int i = 0; i < times; ++i) hot.count({LayerId{layer}, ExpertId{expert}});
}

TEST(HotSet, RanksByUsesAndLeavesOutWhatHasNone) {
  HotSet hot(kShape);
  EXPECT_THAT(hot.hottest(), IsEmpty());
  count(hot, 1, 3, 2);
  count(hot, 0, 2, 5);
  count(hot, 0, 1, 2);
  EXPECT_THAT(hot.hottest(), ElementsAre(uses(0, 2, 5), uses(0, 1, 2), uses(1, 3, 2)));
}

TEST(HotSet, BeginsWithThoseOfBeforeWhichCountHalf) {
  HotSet hot(kShape);
  hot.warm_up(
      std::vector{uses(1, 3, 9), uses(0, 1, 4), uses(0, 0, 1), uses(2, 0, 50), uses(0, 4, 50)});
  EXPECT_EQ(*hot.next(), (ExpertKey{LayerId{1}, ExpertId{3}}));
  EXPECT_EQ(*hot.next(), (ExpertKey{LayerId{0}, ExpertId{1}}));
  EXPECT_EQ(*hot.next(), (ExpertKey{LayerId{0}, ExpertId{0}}));
  EXPECT_EQ(hot.next(), std::nullopt) << "there are no such layers and experts";
  count(hot, 0, 1, 3);
  EXPECT_THAT(hot.hottest(), ElementsAre(uses(0, 1, 5), uses(1, 3, 4)));
}

}  // namespace
}  // namespace winnow::experts::hot_set_test

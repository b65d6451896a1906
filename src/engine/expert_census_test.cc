// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/expert_census.h"

#include <gtest/gtest.h>

#include "model/test_models.h"

namespace winnow::engine::expert_census_test {
namespace {

// An expert of testdata/models/qwen3_moe-plain: three matrices of 32 x 32, 2 bytes a weight.
constexpr std::uint64_t kExpert = std::uint64_t{3} * 32 * 32 * 2;

void choose(ExpertCensus& census, std::uint32_t layer, std::vector<ExpertId> experts) {
  const std::vector<float> weights(experts.size(), 0.5F);
  census.on_routing(LayerId{layer}, {}, {2, experts, weights});
}

TEST(ExpertCensus, CountsAnExpertOnceForAllTokensOfAPassAndLayer) {
  ExpertCensus census(model::Checkpoint::open(model::testing::tiny_model("plain")));
  choose(census, 0, {ExpertId{1}, ExpertId{7}, ExpertId{7}, ExpertId{0}});
  EXPECT_EQ(census.experts(), 3U);
  EXPECT_EQ(census.bytes(), 3 * kExpert);
  choose(census, 1, {ExpertId{1}, ExpertId{2}});  // another layer's are others
  choose(census, 0, {ExpertId{1}, ExpertId{7}});  // the next pass reads them again
  EXPECT_EQ(census.experts(), 7U);
  EXPECT_EQ(census.bytes(), 7 * kExpert);
}

TEST(ExpertCensus, LeavesOutWhatAPolicySkips) {
  ExpertCensus census(model::Checkpoint::open(model::testing::tiny_model("plain")));
  const std::vector<ExpertId> chosen = {ExpertId{1}, ExpertId{7}, ExpertId{2}, ExpertId{0}};
  const std::vector<float> weights = {0.75F, 0.25F, 1, 0};
  const std::vector<std::uint32_t> used = {2, 1};
  census.on_routing(LayerId{0}, {}, {2, chosen, weights, used});
  EXPECT_EQ(census.experts(), 3U);
}

TEST(ExpertCensus, AModelWithoutExpertsHasNone) {
  const ExpertCensus census(model::Checkpoint::open(model::testing::tiny_folder("qwen3-plain")));
  EXPECT_EQ(census.bytes(), 0U);
}

}  // namespace
}  // namespace winnow::engine::expert_census_test

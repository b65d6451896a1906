// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/route_predictor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "base/error.h"

namespace winnow::experts::route_predictor_test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr CacheShape kShape{.num_layers = 4, .num_experts = 5, .top_k = 2, .slots = 3};
constexpr LayerId kFirst{1};
constexpr LayerId kSecond{2};
constexpr LayerId kThird{3};

class FixedPreview final : public RouterPreview {
 public:
  std::span<const float> logits(LayerId layer) override {
    logits_.assign(kShape.num_experts, static_cast<float>(index(layer)));
    logits_[index(layer)] = 9;
    return logits_;
  }

 private:
  std::vector<float> logits_;
};

std::vector<ExpertId> experts(std::initializer_list<std::uint32_t> ids) {
  std::vector<ExpertId> list;
  for (const std::uint32_t id : ids) list.push_back(ExpertId{id});
  return list;
}

class Probe {
 public:
  explicit Probe(std::string_view name) : predictor_(find_route_predictor(name).make(kShape)) {}

  RoutePredictor& operator*() { return *predictor_; }
  /// Empty: no opinion.
  std::vector<float> scores(LayerId layer, RouterPreview* preview = nullptr) {
    std::vector<float> scores(kShape.num_experts, -1);
    if (!predictor_->score(layer, preview, scores)) return {};
    return scores;
  }
  void pass(int token, LayerId layer, std::initializer_list<std::uint32_t> chosen) {
    predictor_->begin_pass(TokenId{token});
    predictor_->learn(layer, experts(chosen));
  }

 private:
  std::unique_ptr<RoutePredictor> predictor_;
};

TEST(RoutePredictors, AreFoundByNameAndListedWhenNot) {
  for (const PredictorEntry* predictor : route_predictors()) {
    EXPECT_EQ(&find_route_predictor(predictor->name), predictor);
    EXPECT_FALSE(predictor->source.empty());
  }
  try {
    (void)find_route_predictor("oracle");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_THAT(error.message(), HasSubstr("next-router, token-table, sequence-prior"));
  }
}

TEST(NextRouterPredictor, AsksTheLayersRouterOnceThereIsAState) {
  Probe probe("next-router");
  FixedPreview preview;
  EXPECT_TRUE(probe.scores(kFirst).empty());
  EXPECT_THAT(probe.scores(kSecond, &preview), ElementsAre(2, 2, 9, 2, 2));
}

TEST(TokenTablePredictor, RemembersWhatATokenUsedInTheFirstLayers) {
  Probe probe("token-table");
  EXPECT_TRUE(probe.scores(kFirst).empty());
  probe.pass(7, kFirst, {0, 3});
  probe.pass(7, kSecond, {1, 2});
  probe.pass(7, kThird, {1, 2});  // beyond the layers that it keeps
  probe.pass(8, kFirst, {4, 1});
  (*probe).begin_pass(TokenId{7});
  EXPECT_THAT(probe.scores(kFirst), ElementsAre(1, 0, 0, 1, 0));
  EXPECT_THAT(probe.scores(kSecond), ElementsAre(0, 1, 1, 0, 0));
  EXPECT_TRUE(probe.scores(kThird).empty());
  (*probe).begin_pass(TokenId{8});
  EXPECT_THAT(probe.scores(kFirst), ElementsAre(0, 1, 0, 0, 1));
  (*probe).begin_pass(TokenId{9});
  EXPECT_TRUE(probe.scores(kFirst).empty());
}

TEST(TokenTablePredictor, CountsTheLastMeetingsMost) {
  Probe probe("token-table");
  probe.pass(7, kFirst, {0, 3});
  probe.pass(7, kFirst, {0, 4});
  EXPECT_THAT(probe.scores(kFirst), ElementsAre(1.5, 0, 0, 0.5, 1));
  probe.pass(7, kFirst, {1, 2});
  // Four are kept, twice what a token uses: 0.75, 1, 1, 0.25 and 0.5 were there.
  EXPECT_THAT(probe.scores(kFirst), ElementsAre(0.75, 1, 1, 0, 0.5));
}

TEST(TokenTablePredictor, GivesATokensPlaceToAnotherWithTheSameRemainder) {
  Probe probe("token-table");
  probe.pass(7, kFirst, {0, 3});
  probe.pass(7 + 4096, kFirst, {1, 2});
  EXPECT_THAT(probe.scores(kFirst), ElementsAre(0, 1, 1, 0, 0));
  (*probe).begin_pass(TokenId{7});
  EXPECT_TRUE(probe.scores(kFirst).empty());
}

TEST(SequencePriorPredictor, RanksByRecentUseInTheSequenceThenByAllUse) {
  Probe probe("sequence-prior");
  EXPECT_TRUE(probe.scores(kFirst).empty());
  for (int i = 0; i < 50; ++i) probe.pass(1, kFirst, {0, 1});
  for (int i = 0; i < 40; ++i) probe.pass(1, kFirst, {0, 2});
  auto scores = probe.scores(kFirst);
  EXPECT_GT(scores[0], scores[2]);
  EXPECT_GT(scores[2], scores[1]) << "used less, but lately";
  EXPECT_GT(scores[1], scores[3]);
  (*probe).begin_sequence();
  scores = probe.scores(kFirst);
  EXPECT_GT(scores[1], scores[2]) << "of all text, 50 tokens of 90";
  EXPECT_TRUE(probe.scores(kSecond).empty());
}

}  // namespace
}  // namespace winnow::experts::route_predictor_test

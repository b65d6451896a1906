// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/moments.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "compress/testing.h"

namespace winnow::compress::moments_test {
namespace {

using engine::Site;
using model::Role;
using testing::random_windows;

model::Checkpoint tiny(const std::string& name) {
  return testing::open_tiny(WINNOW_SOURCE_DIR, name);
}

/// Keeps every input as it came, to be summed afterwards in another way.
class Recorder final : public engine::Observer {
 public:
  struct Row {
    std::vector<float> x;
    double weight;
  };
  using Key = std::tuple<Site, LayerId, ExpertId>;
  void on_input(Site site, LayerId layer, tensor::MatrixView<const float> x) override {
    for (std::size_t t = 0; t < x.rows; ++t) {
      rows[{site, layer, {}}].push_back({{x.row(t).begin(), x.row(t).end()}, 1});
    }
  }
  void on_expert_input(Site site, LayerId layer, ExpertId expert, tensor::MatrixView<const float> x,
                       std::span<const float> weights) override {
    for (std::size_t t = 0; t < x.rows; ++t) {
      rows[{site, layer, expert}].push_back({{x.row(t).begin(), x.row(t).end()}, weights[t]});
    }
  }
  std::map<Key, std::vector<Row>> rows;
};

/// Column by column, last token first.
std::vector<double> naive_sums(const std::vector<Recorder::Row>& rows) {
  std::vector<double> sums(rows.front().x.size());
  for (std::size_t j = 0; j < sums.size(); ++j) {
    for (std::size_t t = rows.size(); t-- > 0;) {
      sums[j] += std::pow(rows[t].weight * rows[t].x[j], 2);
    }
  }
  return sums;
}

void run(engine::Engine& engine, const metrics::WindowSet& set, engine::Observer& observer) {
  for (const metrics::Window& window : set.windows) {
    engine::KvCache cache = engine.make_cache(window.tokens.size());
    const engine::SequenceInput input{&cache, window.tokens};
    engine.forward(std::span(&input, 1), &observer);
  }
}

struct Place {
  Role role;
  Site site;
};
constexpr Place kPlaces[] = {
    {Role::kQueryProj, Site::kAttentionInput},  {Role::kKeyProj, Site::kAttentionInput},
    {Role::kValueProj, Site::kAttentionInput},  {Role::kAttentionOutput, Site::kAttentionInner},
    {Role::kRouter, Site::kFfnInput},           {Role::kExpertGateProj, Site::kExpertInput},
    {Role::kExpertUpProj, Site::kExpertInput},  {Role::kExpertDownProj, Site::kExpertInner},
    {Role::kTokenEmbedding, Site::kOutputInput}};

TEST(InputMoments, AreTheSumsOfSquaresWeightedWithTheSquaredRouterWeights) {
  Log log;
  engine::Engine engine(tiny("plain"), {1, ""}, log);
  const auto windows = random_windows(3, 30);
  InputMoments moments(engine.spec());
  Recorder recorder;
  run(engine, windows, moments);
  run(engine, windows, recorder);
  int compared = 0;
  for (const Place& place : kPlaces) {
    const bool per_layer = model::traits(place.role).per_layer;
    const std::uint32_t experts = model::traits(place.role).per_expert ? 8 : 1;
    for (std::uint32_t layer = 0; layer < (per_layer ? 2U : 1U); ++layer) {
      for (std::uint32_t expert = 0; expert < experts; ++expert) {
        const auto found = recorder.rows.find({place.site, LayerId{layer}, ExpertId{expert}});
        ASSERT_NE(found, recorder.rows.end());
        const auto expected = naive_sums(found->second);
        const auto sums = moments.sums(place.role, LayerId{layer}, ExpertId{expert});
        ASSERT_EQ(sums.size(), expected.size());
        for (std::size_t j = 0; j < sums.size(); ++j) {
          // Non-negative f64 terms, at most 93: the orders differ by 93 units of 2^-53.
          EXPECT_NEAR(sums[j], expected[j], 1e-13 * expected[j]);
        }
        EXPECT_EQ(moments.tokens(place.role, LayerId{layer}, ExpertId{expert}),
                  found->second.size());
        ++compared;
      }
    }
  }
  EXPECT_EQ(compared, 2 * (5 + 3 * 8) + 1);
}

TEST(InputMoments, OfDenseLayersAreThoseOfTheirOwnInputs) {
  Log log;
  engine::Engine engine(tiny("dense-first"), {1, ""}, log);
  const auto windows = random_windows(1, 20);
  InputMoments moments(engine.spec());
  Recorder recorder;
  run(engine, windows, moments);
  run(engine, windows, recorder);
  EXPECT_EQ(moments.sums(Role::kDownProj, LayerId{0}, {}).size(), 48U);
  EXPECT_EQ(moments.tokens(Role::kGateProj, LayerId{0}, {}), 21U);
  const auto expected = naive_sums(recorder.rows.at({Site::kFfnInner, LayerId{0}, {}}));
  const auto sums = moments.sums(Role::kDownProj, LayerId{0}, {});
  for (std::size_t j = 0; j < sums.size(); ++j) {
    EXPECT_NEAR(sums[j], expected[j], 1e-13 * expected[j]);
  }
}

TEST(InputMoments, AnUntiedEmbeddingIsLookedUpSoAllItsColumnsCountTheSame) {
  Log log;
  engine::Engine engine(tiny("dense-first"), {1, ""}, log);
  InputMoments moments(engine.spec());
  run(engine, random_windows(1, 20), moments);
  EXPECT_EQ(moments.sums(Role::kTokenEmbedding, {}, {}), std::vector<double>(32, 1.0));
  EXPECT_EQ(moments.importance(Role::kTokenEmbedding, {}, {}), std::vector<float>(32, 1.0F));
  EXPECT_EQ(moments.tokens(Role::kOutput, {}, {}), 21U);
  EXPECT_NE(moments.sums(Role::kOutput, {}, {}), std::vector<double>(32, 1.0));
}

/// Feeds single tokens by hand: `tokens` inputs x of router weight `weight` to an expert.
void feed(InputMoments& moments, std::uint32_t expert, int tokens, float weight,
          const std::vector<float>& x) {
  const tensor::MatrixView<const float> row{x.data(), 1, x.size(), x.size()};
  for (int t = 0; t < tokens; ++t) {
    moments.on_expert_input(Site::kExpertInput, {}, ExpertId{expert}, row, std::span(&weight, 1));
  }
}

class Importance : public ::testing::Test {
 protected:
  Importance() : moments_(tiny("plain").spec()) {}
  std::vector<float> of(std::uint32_t expert) const {
    return moments_.importance(Role::kExpertGateProj, {}, ExpertId{expert});
  }
  static std::vector<float> column(std::size_t j, float value) {
    std::vector<float> x(32, 0.0F);
    x[j] = value;
    return x;
  }
  InputMoments moments_;
};

TEST_F(Importance, AsLlamaCppTakesItIsTheMeanSquareAndOneWhereAnExpertSawNoToken) {
  InputMoments plain(tiny("plain").spec(), RouterWeights::kIgnored);
  for (InputMoments* moments : {&plain, &moments_}) {
    feed(*moments, 0, 10, 0.5F, column(3, 2.0F));
    feed(*moments, 0, 30, 0.25F, column(4, 2.0F));
  }
  std::vector<float> expected(32, 0.0F);
  expected[3] = 4.0F * 10 / 40;
  expected[4] = 4.0F * 30 / 40;
  EXPECT_EQ(plain.mean_squares(Role::kExpertGateProj, {}, ExpertId{0}), expected);
  EXPECT_EQ(plain.mean_squares(Role::kExpertUpProj, {}, ExpertId{7}), std::vector<float>(32, 1.0F));
  EXPECT_EQ(plain.tokens(Role::kExpertUpProj, {}, ExpertId{0}), 40U);
  // Weights 1/4 and 1/16: 2.5 and 1.875 in all.
  expected[3] = static_cast<float>(4 * 2.5 / 4.375);
  expected[4] = static_cast<float>(4 * 1.875 / 4.375);
  EXPECT_EQ(moments_.mean_squares(Role::kExpertGateProj, {}, ExpertId{0}), expected);
}

TEST_F(Importance, AsLlamaCppTakesItIsNoneForInputsThatNobodySaw) {
  feed(moments_, 0, 10, 0.5F, column(3, 2.0F));
  EXPECT_TRUE(moments_.mean_squares(Role::kExpertDownProj, {}, ExpertId{0}).empty());
  EXPECT_TRUE(moments_.mean_squares(Role::kExpertGateProj, LayerId{1}, ExpertId{0}).empty());
  EXPECT_TRUE(moments_.mean_squares(Role::kQueryProj, {}, {}).empty());
  InputMoments untied(tiny("dense-first").spec());
  untied.add(Site::kOutputInput, {}, {}, std::vector<double>(32, 5.0), 2, 2);
  EXPECT_TRUE(untied.mean_squares(Role::kTokenEmbedding, {}, {}).empty());
  EXPECT_EQ(untied.mean_squares(Role::kOutput, {}, {}), std::vector<float>(32, 2.5F));
}

TEST_F(Importance, InputsThatNobodySawAreNotKnown) {
  feed(moments_, 0, 10, 0.5F, column(3, 2.0F));
  EXPECT_TRUE(moments_.knows(Role::kExpertGateProj, {}));
  EXPECT_FALSE(moments_.knows(Role::kExpertGateProj, LayerId{1}));
  EXPECT_FALSE(moments_.knows(Role::kExpertDownProj, {}));
  EXPECT_FALSE(moments_.knows(Role::kOutput, {}));
}

TEST_F(Importance, OfAnExpertThatSawNoTokenIsThatOfItsLayer) {
  feed(moments_, 0, 10, 0.5F, column(3, 2.0F));
  feed(moments_, 1, 10, 0.5F, column(4, 2.0F));
  const auto importance = of(7);
  EXPECT_FLOAT_EQ(importance[3], 16.0F);  // half of the mean over 32 columns, which is 1
  EXPECT_FLOAT_EQ(importance[4], 16.0F);
  EXPECT_EQ(moments_.sums(Role::kExpertGateProj, {}, ExpertId{7}), std::vector<double>(32, 0.0));
  EXPECT_EQ(moments_.tokens(Role::kExpertGateProj, {}, ExpertId{7}), 0U);
}

TEST_F(Importance, OfAnExpertWithManyTokensIsNearlyItsOwn) {
  feed(moments_, 0, 100000, 0.5F, column(3, 2.0F));
  feed(moments_, 1, 100000, 0.5F, column(4, 2.0F));
  EXPECT_GT(of(0)[3], 31.9F);
  EXPECT_LT(of(0)[4], 0.05F);
  EXPECT_GT(of(0)[4], 0.0F);
}

TEST_F(Importance, OfAnExpertWithTheTokensOfThePriorIsHalfItsOwnAndHalfItsLayers) {
  feed(moments_, 0, 64, 0.5F, column(3, 2.0F));
  feed(moments_, 1, 1000000, 0.5F, column(4, 2.0F));
  // 64 tokens of its own and 64 of the layer's mean, all of them (nearly) in column 4.
  EXPECT_NEAR(of(0)[3], 16.0F, 0.01F);
  EXPECT_NEAR(of(0)[4], 16.0F, 0.01F);
}

TEST_F(Importance, IsPositiveFiniteAndOfMeanOneWhateverTheScaleOfTheInputs) {
  for (const float scale : {1e-18F, 1.0F, 1e18F}) {
    InputMoments moments(tiny("plain").spec());
    std::vector<float> x(32);
    for (std::size_t j = 0; j < x.size(); ++j) x[j] = scale * static_cast<float>(j);
    feed(moments, 2, 5, 0.25F, x);
    double sum = 0;
    for (const float value : moments.importance(Role::kExpertUpProj, {}, ExpertId{2})) {
      EXPECT_GT(value, 0.0F);
      EXPECT_TRUE(std::isfinite(value));
      sum += value;
    }
    EXPECT_NEAR(sum / 32, 1.0, 1e-4) << scale;
  }
}

TEST_F(Importance, WithoutAnyTokenAllColumnsCountTheSame) {
  EXPECT_EQ(of(0), std::vector<float>(32, 1.0F));
}

}  // namespace
}  // namespace winnow::compress::moments_test

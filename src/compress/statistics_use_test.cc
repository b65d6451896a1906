// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/statistics_use.h"

#include <gtest/gtest.h>

#include "compress/profiler.h"
#include "compress/testing.h"
#include "formats/test_files.h"

namespace winnow::compress::statistics_use_test {
namespace {

using formats::testing::TemporaryFolder;
using model::Role;

class UseOfStatistics : public ::testing::TestWithParam<std::string> {
 protected:
  UseOfStatistics()
      : checkpoint_(testing::open_tiny(WINNOW_SOURCE_DIR, GetParam())),
        text_(testing::random_windows(18, 21)) {
    text_.domains = {"prose", "code"};
    for (std::size_t w = 9; w < 18; ++w) text_.windows[w].domain = 1;
    profile_model(checkpoint_, text_, folder_.path() / "s", testing::profile_options(), log_);
    file_.emplace(StatisticsFile::open(folder_.path() / "s"));
  }
  /// As collected by a pass of the whole model over the sequences that are not held out.
  InputMoments collected(std::size_t first, std::size_t last,
                         RouterWeights router_weights = RouterWeights::kSquared) {
    engine::Engine engine(checkpoint_, {1, ""}, log_);
    InputMoments moments(engine.spec(), router_weights);
    for (std::size_t w = first; w < last; ++w) {
      if (w % 9 == 7) continue;
      engine::KvCache cache = engine.make_cache(text_.windows[w].tokens.size());
      const engine::SequenceInput input{&cache, text_.windows[w].tokens};
      engine.forward(std::span(&input, 1), &moments);
    }
    return moments;
  }
  void expect_same(const InputMoments& loaded, const InputMoments& expected) {
    std::size_t compared = 0;
    checkpoint_.for_each_role([&](Role role, LayerId layer) {
      if (!model::traits(role).is_matrix) return;
      for (std::uint32_t e = 0; e < checkpoint_.part_count(role, layer); ++e) {
        const auto a = loaded.sums(role, layer, ExpertId{e});
        const auto b = expected.sums(role, layer, ExpertId{e});
        ASSERT_EQ(a.size(), b.size());
        // Positive f64 terms in another order, rounded to 42 bits.
        for (std::size_t j = 0; j < a.size(); ++j) ASSERT_NEAR(a[j], b[j], 1e-12 * b[j]);
        EXPECT_EQ(loaded.tokens(role, layer, ExpertId{e}),
                  expected.tokens(role, layer, ExpertId{e}));
        const auto x = loaded.importance(role, layer, ExpertId{e});
        const auto y = expected.importance(role, layer, ExpertId{e});
        for (std::size_t j = 0; j < x.size(); ++j) ASSERT_NEAR(x[j], y[j], 1e-6F * y[j]);
        ++compared;
      }
    });
    EXPECT_GT(compared, 10U);
  }

  TemporaryFolder folder_;
  model::Checkpoint checkpoint_;
  metrics::WindowSet text_;
  Log log_;
  std::optional<StatisticsFile> file_;
};

TEST_P(UseOfStatistics, GivesTheMomentsOfAPassOfTheWholeModel) {
  const auto all = [](const std::string&) { return 1.0; };
  expect_same(load_moments(*file_, checkpoint_.spec(), all), collected(0, 18));
}

TEST_P(UseOfStatistics, GivesTheMeanSquaresOfLayersWithoutRouterWeights) {
  const auto all = [](const std::string&) { return 1.0; };
  const auto loaded = load_moments(*file_, checkpoint_.spec(), all, RouterWeights::kIgnored);
  const auto expected = collected(0, 18, RouterWeights::kIgnored);
  std::size_t compared = 0;
  checkpoint_.for_each_role([&](Role role, LayerId layer) {
    if (!model::traits(role).is_matrix) return;
    for (std::uint32_t e = 0; e < checkpoint_.part_count(role, layer); ++e) {
      const auto a = loaded.mean_squares(role, layer, ExpertId{e});
      const auto b = expected.mean_squares(role, layer, ExpertId{e});
      if (!model::traits(role).per_layer) {
        EXPECT_TRUE(a.empty());
        continue;
      }
      ASSERT_EQ(a.size(), b.size());
      // f64 sums in another order: f32 neighbours at most.
      for (std::size_t j = 0; j < a.size(); ++j) ASSERT_NEAR(a[j], b[j], 0x1p-23F * b[j]);
      ++compared;
    }
  });
  EXPECT_GT(compared, 10U);
}

TEST_P(UseOfStatistics, LeavesOutDomainsOfNoWeight) {
  const auto code = [](const std::string& domain) { return domain == "code" ? 1.0 : 0.0; };
  expect_same(load_moments(*file_, checkpoint_.spec(), code), collected(9, 18));
}

TEST_P(UseOfStatistics, GivesTheHeldOutTextBack) {
  const auto text = held_out_text(*file_, checkpoint_.spec().vocab_size);
  EXPECT_EQ(text.domains, text_.domains);
  ASSERT_EQ(text.windows.size(), 2U);
  EXPECT_EQ(text.windows[0].tokens, text_.windows[7].tokens);
  EXPECT_EQ(text.windows[1].tokens, text_.windows[16].tokens);
  EXPECT_EQ(text.windows[1].domain, 1U);
  EXPECT_EQ(text.windows[1].first_scored, text_.windows[16].first_scored);
}

INSTANTIATE_TEST_SUITE_P(TinyModels, UseOfStatistics, ::testing::Values("plain", "sparse-step-2"),
                         [](const auto& model) {
                           return model.param == "plain" ? "plain" : "sparse";
                         });

}  // namespace
}  // namespace winnow::compress::statistics_use_test

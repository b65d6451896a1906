// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What doing without an expert is said to change against running the layer without it.
#include "compress/expert_sums.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/expert_replacement.h"
#include "compress/layer_of_experts.h"
#include "formats/test_files.h"
#include "model/test_models.h"

namespace winnow::compress::expert_sums_test {
namespace {

using Kind = engine::ExpertSubstitute::Kind;

constexpr LayerId kLayer{0};

class Sums : public ::testing::TestWithParam<std::string> {
 protected:
  Sums() : runner_(source_, {1, ""}), batches_(text_.windows, 64) {
    stream_.emplace(batches_, source_.spec().hidden_size, "");
    stream_->embed(runner_, nullptr, log_);
    runner_.load(kLayer);
    sums_ = collect_expert_sums(runner_, source_.spec(), kLayer, *stream_, log_);
  }

  /// Squared change of the layer's output over the text.
  double measured(ExpertId expert, Kind kind) {
    std::vector<engine::ExpertSubstitute> experts(source_.spec().moe.num_experts);
    const std::vector<float> constant = best_constant(sums_.experts[index(expert)]);
    experts[index(expert)] = {kind, constant};
    return testing::squared_change(runner_, *stream_, batches_,
                                   [&] { runner_.override_experts(experts); });
  }

  model::Checkpoint source_ = testing::open_tiny(WINNOW_SOURCE_DIR, GetParam());
  metrics::WindowSet text_ = testing::random_windows(5, 40);
  testing::TestLog log_;
  engine::LayerRunner runner_;
  WindowBatches batches_;
  std::optional<WindowStream> stream_;
  LayerSums sums_;
};

TEST_P(Sums, EveryReplacementChangesTheOutputAsPredicted) {
  for (const ExpertReplacement* how : expert_replacements()) {
    if (how->kind == model::ExpertKind::kShared) continue;  // expert_likeness_test.cc
    int seen = 0;
    for (std::uint32_t e = 0; e < sums_.experts.size(); ++e) {
      const double predicted = how->squared_change(sums_.experts[e]);
      ASSERT_TRUE(std::isfinite(predicted)) << how->name;
      // The engine adds in f32.
      EXPECT_NEAR(predicted, measured(ExpertId{e}, how->substitute), 2e-4 * predicted + 1e-9)
          << how->name << ", expert " << e;
      seen += predicted > 0 ? 1 : 0;
    }
    EXPECT_GT(seen, 2) << how->name;
  }
}

/// The best constant is a stationary point of the squared change, which the formula gives exactly.
TEST_P(Sums, TheConstantIsTheBestAndItsChangeThatOfTheFormula) {
  const ExpertReplacement& constant = *find_expert_replacement("constant");
  for (const ExpertSums& sums : sums_.experts) {
    if (sums.tokens == 0) continue;
    const auto change_at = [&](double scale) {
      // sum g^2 |f - s m|^2, from the sums.
      double product = 0;
      double square = 0;
      for (const double value : sums.outputs) {
        const double m = scale * value / sums.squared_weights;
        product += m * value;
        square += m * m;
      }
      return sums.squared_outputs - 2 * product + square * sums.squared_weights;
    };
    const double best = constant.squared_change(sums);
    EXPECT_NEAR(best, change_at(1), 1e-9 * sums.squared_outputs);
    EXPECT_GT(change_at(0.9), best);
    EXPECT_GT(change_at(1.1), best);
    EXPECT_LE(best, find_expert_replacement("zero")->squared_change(sums));
  }
}

TEST_P(Sums, EveryChoiceIsCountedOnce) {
  std::uint64_t tokens = 0;
  for (const ExpertSums& sums : sums_.experts) tokens += sums.tokens;
  EXPECT_EQ(sums_.tokens, batches_.tokens);
  EXPECT_EQ(tokens, sums_.tokens * source_.spec().moe.top_k);
}

TEST_P(Sums, NeitherBatchesNorThreadsChangeABit) {
  engine::LayerRunner runner(source_, {3, ""});
  const WindowBatches batches(text_.windows, 1000);
  WindowStream stream(batches, source_.spec().hidden_size, "");
  stream.embed(runner, nullptr, log_);
  runner.load(kLayer);
  const LayerSums other = collect_expert_sums(runner, source_.spec(), kLayer, stream, log_);
  for (std::size_t e = 0; e < sums_.experts.size(); ++e) {
    EXPECT_EQ(other.experts[e].tokens, sums_.experts[e].tokens);
    EXPECT_EQ(other.experts[e].squared_outputs, sums_.experts[e].squared_outputs);
    EXPECT_EQ(other.experts[e].squared_residuals, sums_.experts[e].squared_residuals);
    EXPECT_EQ(other.experts[e].squared_reroutes, sums_.experts[e].squared_reroutes);
    EXPECT_EQ(other.experts[e].outputs, sums_.experts[e].outputs);
  }
}

TEST(Replacement, AnExpertThatTheTextDoesNotNeedIsNotFree) {
  LayerSums layer;
  layer.tokens = 100;
  layer.experts.resize(2);
  layer.experts[0].tokens = 50;
  layer.experts[0].squared_outputs = 25;
  const ExpertReplacement& zero = *find_expert_replacement("zero");
  EXPECT_DOUBLE_EQ(change_per_token(zero, layer, ExpertId{1}), 0.5 * 0.5 / 100);
  EXPECT_DOUBLE_EQ(change_per_token(zero, layer, ExpertId{0}), 25.25 / 100);
}

/// One expert that has all of a token's weight in f32 leaves nothing of the others' to divide by.
TEST(SaturatedRouter, DroppingAnExpertHasAFiniteChangeThatTheEngineSees) {
  for (const char* name : {"plain", "not-renormalised"}) {
    model::testing::EditableModel model(name);
    std::string& bytes = model.tensor("model.layers.0.mlp.gate.weight").bytes;
    for (std::size_t at = 1; at < bytes.size(); at += 2) {
      const bool is_zero = (bytes[at] & 0x7f) == 0 && (bytes[at - 1] & 0x80) == 0;
      if (!is_zero) bytes[at] = static_cast<char>(bytes[at] + 5);  // BF16: times 1,024
    }
    const formats::testing::TemporaryFolder folder;
    model.write(folder.path() / "loud");
    testing::LayerOfExperts layer(model::Checkpoint::open(folder.path() / "loud"));
    const ExpertReplacement& dropped = *find_expert_replacement("dropped");
    for (std::uint32_t e = 0; e < layer.sums().experts.size(); ++e) {
      const double change = dropped.squared_change(layer.sums().experts[e]);
      ASSERT_TRUE(std::isfinite(change)) << name << ", expert " << e;
      std::vector<engine::ExpertSubstitute> experts(layer.spec().moe.num_experts);
      experts[e].kind = Kind::kDropped;
      EXPECT_NEAR(change, layer.squared_change(experts), 1e-3 * change + 1e-9) << name << " " << e;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Sums, ::testing::Values("plain", "not-renormalised"));

}  // namespace
}  // namespace winnow::compress::expert_sums_test

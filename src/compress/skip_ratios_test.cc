// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Ratios for skipping experts: they skip what they say on the calibration text, and get into files.
#include "compress/skip_ratios.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compress/compressor.h"
#include "compress/memory_plan.h"
#include "compress/testing.h"
#include "formats/expect_error.h"
#include "formats/test_files.h"

namespace winnow::compress::skip_ratios_test {
namespace {

using formats::testing::error_of;
using formats::testing::TemporaryFolder;
using ::testing::ElementsAre;
using testing::file_bytes;
using ::testing::HasSubstr;
using testing::names_in;
using testing::random_windows;
using testing::TestLog;

TEST(SkipRatio, LiesBetweenThoseThatAreSkippedAndTheOthers) {
  std::vector<float> ratios = {0.5F, 0.125F, 0.75F, 0.25F};
  EXPECT_EQ(skip_ratio(ratios, 0.1, 8), 0);  // less than one slot
  EXPECT_EQ(skip_ratio(ratios, 0.125, 8), 0.1875F);
  EXPECT_EQ(skip_ratio(ratios, 0.25, 8), 0.375F);
  EXPECT_EQ(skip_ratio(ratios, 0.375, 8), 0.625F);
  EXPECT_EQ(skip_ratio(ratios, 0.5, 8), 1) << "all but the best";
}

TEST(SkipRatio, SkipsFewerWhereSeveralAreEqual) {
  std::vector<float> ratios = {0.5F, 0.5F, 0.25F, 0.5F};
  EXPECT_EQ(skip_ratio(ratios, 0.25, 8), 0.5F) << "0.25 alone is below";
}

model::SkipRatios measure(const model::Checkpoint& source, const metrics::WindowSet& text,
                          unsigned threads, std::size_t batch,
                          const std::filesystem::path& states = {}) {
  engine::LayerRunner runner(source, {.threads = threads});
  Log log;
  return measure_skip_ratios(runner, source.spec(), WindowBatches(text.windows, batch), states,
                             log);
}

/// Slots of each layer, and how many of them are skipped with this ratio there and none elsewhere.
std::pair<double, double> skipped_in(engine::Engine& engine, const metrics::WindowSet& text,
                                     std::uint32_t layer, float ratio) {
  engine::RoutingPolicy policy;
  policy.skip_ratios.assign(engine.spec().num_hidden_layers, 0);
  policy.skip_ratios[layer] = ratio;
  engine.set_routing_policy(policy);
  engine::ExpertUse use(engine.spec());
  engine.count_experts(&use);
  double tokens = 0;
  for (const metrics::Window& window : text.windows) {
    testing::logits_of(engine, window);
    tokens += static_cast<double>(window.tokens.size());
  }
  engine.count_experts(nullptr);
  const double slots = tokens * engine.spec().moe.top_k;
  return {slots, slots * *use.layer_skipped_shares()[layer]};
}

TEST(MeasureSkipRatios, SkipTheAskedShareOfTheTextWithinOneSlot) {
  auto text = random_windows(6, 30);
  // One start token would have the same ratios in all windows, which are skipped together or not.
  for (std::size_t w = 0; w < text.windows.size(); ++w) {
    text.windows[w].tokens[0] = TokenId{static_cast<std::int32_t>(w)};
  }
  for (const char* name : {"plain", "odd-sizes", "not-renormalised", "dense-first"}) {
    const auto source = testing::open_tiny(WINNOW_SOURCE_DIR, name);
    const model::SkipRatios ratios = measure(source, text, 1, 64);
    Log log;
    engine::Engine engine(source, {.threads = 1}, log);
    for (std::uint32_t layer = 0; layer < source.spec().num_hidden_layers; ++layer) {
      for (const float share : ratios.shares) {
        const float ratio = ratios.at(double{share})[layer];
        if (!source.spec().is_moe_layer(LayerId{layer})) {
          EXPECT_EQ(ratio, 0);
          continue;
        }
        const auto [slots, skipped] = skipped_in(engine, text, layer, ratio);
        EXPECT_NEAR(skipped, double{share} * slots, 1.0) << name << " " << layer << " " << share;
      }
    }
  }
}

TEST(MeasureSkipRatios, DependOnNeitherThreadsNorBatchesNorWhereTheStatesAre) {
  const auto text = random_windows(6, 30);
  const auto source = testing::open_tiny(WINNOW_SOURCE_DIR, "plain");
  const model::SkipRatios ratios = measure(source, text, 1, 64);
  const TemporaryFolder folder;
  EXPECT_EQ(measure(source, text, 3, 1024, folder.path() / "states"), ratios);
}

class CompressWithSkipRatios : public ::testing::Test {
 protected:
  CompressWithSkipRatios() {
    options_.file_budget = Bytes{150000};
    options_.engine.threads = 1;
    options_.skip_ratios = true;
  }
  std::filesystem::path out() const { return folder_.path() / "out.gguf"; }
  void compress(Log& log) { compress_model(source_, out(), &text_, options_, log); }
  std::optional<model::SkipRatios> stored() const {
    const auto file = model::Checkpoint::open(out());
    return model::read_skip_ratios(file.file(), file.spec());
  }
  std::string refusal(const model::Checkpoint& source, const metrics::WindowSet* text) {
    TestLog log;
    return error_of([&] { compress_model(source, out(), text, options_, log); }, ErrorCode::kUsage);
  }
  TemporaryFolder folder_;
  metrics::WindowSet text_ = random_windows(6, 30);
  model::Checkpoint source_ = testing::open_tiny(WINNOW_SOURCE_DIR, "plain");
  CompressOptions options_;
};

TEST_F(CompressWithSkipRatios, TheFileHasThoseOfTheSourceWithinTheBudget) {
  TestLog log;
  compress(log);
  EXPECT_EQ(stored(), measure(source_, text_, 2, 1024));
  EXPECT_LE(std::filesystem::file_size(out()), options_.file_budget->value);
  const std::string bytes = file_bytes(out());
  options_.engine.threads = 3;
  compress(log);
  EXPECT_EQ(file_bytes(out()), bytes);
  testing::with_least_memory([&](Bytes limit) {
    options_.max_memory = limit;
    compress(log);
    return 0;
  });
  EXPECT_EQ(file_bytes(out()), bytes) << "a limit of memory changes no bit";
  options_.max_memory.reset();
  options_.skip_ratios = false;
  compress(log);
  EXPECT_EQ(stored(), std::nullopt) << "only where they are asked for";
}

TEST_F(CompressWithSkipRatios, ExtendedFilesHaveThemToo) {
  options_.experts.types = true;
  TestLog log;
  compress(log);
  EXPECT_EQ(stored(), measure(source_, text_, 2, 1024));
}

TEST_F(CompressWithSkipRatios, ARunThatWasBrokenOffWritesTheSameBytes) {
  TestLog counting;
  compress(counting);
  const std::string bytes = file_bytes(out());
  for (int calls = 0; calls < counting.asked; calls += 211) {
    std::filesystem::remove(out());
    TestLog stop(calls);
    error_of([&] { compress(stop); }, ErrorCode::kInterrupted);
    TestLog resumed;
    compress(resumed);
    EXPECT_EQ(file_bytes(out()), bytes) << "stopped after " << calls;
    EXPECT_THAT(names_in(folder_.path()), ElementsAre("out.gguf"));
  }
}

TEST_F(CompressWithSkipRatios, WithoutTextOrExpertsTheyAreRefused) {
  EXPECT_THAT(refusal(source_, nullptr), HasSubstr("give --data"));
  const auto dense = model::Checkpoint::open(std::filesystem::path(WINNOW_SOURCE_DIR) /
                                             "testdata/models/llama-plain");
  EXPECT_THAT(refusal(dense, &text_), HasSubstr("has no experts"));
  EXPECT_THAT(names_in(folder_.path()), ElementsAre());
}

}  // namespace
}  // namespace winnow::compress::skip_ratios_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// As many experts in every layer as lose least, in a file that stock readers run.
#include "compress/portable_counts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "compress/testing.h"
#include "formats/expect_error.h"
#include "formats/test_files.h"
#include "model/extended_layout.h"

namespace winnow::compress::portable_counts_test {
namespace {

using formats::testing::error_of;
using formats::testing::TemporaryFolder;
using ::testing::ElementsAre;
using testing::file_bytes;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::names_in;
using testing::TestLog;

TEST(Counts, AreEighthsThatLeaveAChoice) {
  EXPECT_THAT(counts_to_try(32, 6), ElementsAre(28, 24, 20, 16, 12, 8));
  EXPECT_THAT(counts_to_try(8, 3), ElementsAre(7, 6, 5, 4, 3));
  EXPECT_THAT(counts_to_try(3, 2), ElementsAre(2));
  EXPECT_THAT(counts_to_try(2, 2), IsEmpty());
}

TEST(Counts, KeepTheExpertsWhoseLossChangesMostAndTheProtected) {
  LayerSums sums;
  sums.tokens = 10;
  sums.experts.resize(4);
  for (std::size_t e = 0; e < 4; ++e) {
    sums.experts[e].tokens = 5;
    sums.experts[e].squared_reroutes = std::array{3.0, 1.0, 4.0, 2.0}[e];
  }
  const auto id = [](std::uint32_t e) { return ExpertId{e}; };
  EXPECT_THAT(most_needed(sums, {}, 2), ElementsAre(id(0), id(2)));
  EXPECT_THAT(most_needed(sums, {false, true, false, false}, 2), ElementsAre(id(1), id(2)));
  EXPECT_THAT(most_needed(sums, {}, 4).size(), 4);
}

class PortableCounts : public ::testing::Test {
 protected:
  std::filesystem::path out() const { return folder_.path() / "out.gguf"; }
  CompressResult run(std::uint64_t bytes, unsigned threads = 1) {
    CompressOptions options;
    options.file_budget = Bytes{bytes};
    options.engine.threads = threads;
    options.experts = expert_options_of_names("dropped");
    return run(options);
  }
  CompressResult run(const CompressOptions& options) {
    return compress_portable(
        source_, out(), text_, options,
        [](const KeptExperts& kept) { return open().with_experts(kept); }, log_);
  }
  static model::Checkpoint open() { return testing::open_tiny(WINNOW_SOURCE_DIR, "plain"); }
  /// Of the smallest file with all experts.
  std::uint64_t least() {
    CompressOptions options;
    options.file_budget = Bytes{1};
    const std::string message = error_of(
        [&] { compress_model(source_, out(), &text_, options, log_); }, ErrorCode::kBudget);
    const std::string before = "possible file has ";
    return std::stoull(message.substr(message.find(before) + before.size()));
  }

  model::Checkpoint source_ = open();
  metrics::WindowSet text_ = testing::random_windows(6, 30);
  TemporaryFolder folder_;
  TestLog log_;
};

TEST_F(PortableCounts, TheNumberOfLeastMeasuredLossIsTaken) {
  const std::uint64_t smallest = least();
  for (const std::uint64_t budget : {smallest - 4000, smallest + 2000, smallest + 60000}) {
    const CompressResult result = run(budget);
    EXPECT_THAT(names_in(folder_.path()), ElementsAre("out.gguf")) << "nothing else is left";
    EXPECT_LE(std::filesystem::file_size(out()), budget);
    const auto written = model::Checkpoint::open(out());
    EXPECT_FALSE(written.spec().has_varied_experts());
    const std::uint32_t keep = result.counts_record["keep"];
    for (std::uint32_t l = 0; l < written.spec().num_hidden_layers; ++l) {
      EXPECT_EQ(written.spec().num_experts(LayerId{l}), keep);
    }
    constexpr double kNone = std::numeric_limits<double>::infinity();
    double least_kl = kNone;
    double taken = 0;
    for (const Json& trial : result.counts_record["tried"]) {
      const double kl = trial.value("kl", kNone);
      if (trial["keep"] == keep) taken = kl;
      least_kl = std::min(least_kl, kl);
    }
    EXPECT_EQ(taken, least_kl);
    EXPECT_DOUBLE_EQ(taken, result.measured->all.kl_divergence);
    if (budget < smallest) {
      EXPECT_LT(keep, 8U);
      EXPECT_TRUE(result.counts_record["tried"][0].contains("impossible"));
    }
  }
}

TEST_F(PortableCounts, BitsAreThoseOfTheSourcesWeights) {
  CompressOptions options;
  options.bits_per_weight = 4.0;
  options.engine.threads = 1;
  options.experts = expert_options_of_names("dropped");
  const CompressResult result = run(options);
  EXPECT_LE(8.0 * static_cast<double>(result.tensor_bytes.value),
            4.0 * static_cast<double>(source_.num_parameters()));
  EXPECT_LT(result.counts_record["keep"], 8) << "the smallest types have more bits";
}

TEST_F(PortableCounts, NumbersThatCannotWinAreNotTried) {
  const CompressResult result = run(least() + 60000);
  std::size_t skipped = 0;
  const double taken = result.measured->all.kl_divergence;
  for (const Json& trial : result.counts_record["tried"]) {
    if (trial.contains("kl")) continue;
    ++skipped;
    EXPECT_GE(trial["dropped_kl"].get<double>(), taken);
  }
  EXPECT_GT(skipped, 0U);
}

TEST_F(PortableCounts, ThreadsAndInterruptionsChangeNoByte) {
  const std::uint64_t budget = least() - 4000;
  TestLog counting;
  CompressOptions options;
  options.file_budget = Bytes{budget};
  options.engine.threads = 1;
  options.experts = expert_options_of_names("dropped");
  const auto reduced = [](const KeptExperts& kept) { return open().with_experts(kept); };
  compress_portable(source_, out(), text_, options, reduced, counting);
  const std::string bytes = file_bytes(out());
  run(budget, 3);
  EXPECT_EQ(file_bytes(out()), bytes);
  for (int calls = 50; calls < counting.asked; calls += counting.asked / 4) {
    std::filesystem::remove(out());
    TestLog stop(calls);
    error_of([&] { compress_portable(source_, out(), text_, options, reduced, stop); },
             ErrorCode::kInterrupted);
    EXPECT_FALSE(std::filesystem::exists(out()));
    TestLog resumed;
    compress_portable(source_, out(), text_, options, reduced, resumed);
    EXPECT_EQ(file_bytes(out()), bytes) << "stopped after " << calls;
    EXPECT_THAT(names_in(folder_.path()), ElementsAre("out.gguf"));
  }
}

TEST_F(PortableCounts, WhatNoNumberMeetsIsRefusedWithTheReason) {
  CompressOptions options;
  options.file_budget = Bytes{1000};
  options.experts = expert_options_of_names("dropped");
  EXPECT_THAT(error_of([&] { run(options); }, ErrorCode::kBudget), HasSubstr("cannot be met"));
  EXPECT_FALSE(std::filesystem::exists(out()));
}

TEST_F(PortableCounts, GoesByPredictionsUnderALimitOfMemory) {
  const std::uint64_t budget = least() - 4000;
  const CompressResult limited = testing::with_least_memory([&](Bytes limit) {
    CompressOptions options;
    options.file_budget = Bytes{budget};
    options.engine.threads = 1;
    options.experts = expert_options_of_names("dropped");
    options.max_memory = limit;
    return run(options);
  });
  EXPECT_LE(std::filesystem::file_size(out()), budget);
  EXPECT_LT(limited.counts_record["keep"], 8);
  EXPECT_THAT(names_in(folder_.path()), ElementsAre("out.gguf"));
}

}  // namespace
}  // namespace winnow::compress::portable_counts_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Compressing with low-rank corrections, end to end on tiny models.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compress/compressor.h"
#include "compress/quantizer_methods.h"
#include "compress/testing.h"
#include "formats/expect_error.h"
#include "formats/test_files.h"
#include "model/exporter.h"

namespace winnow::compress::corrected_compress_test {
namespace {

using formats::testing::error_of;
using formats::testing::TemporaryFolder;
using testing::file_bytes;
using ::testing::HasSubstr;
using testing::names_in;
using testing::random_windows;
using testing::TestLog;

constexpr std::size_t kRank = 2;  // tiny matrices: more would cost more than they do

CompressOptions with(const char* method, double bits) {
  CompressOptions options;
  options.bits_per_weight = bits;
  options.engine.threads = 1;
  options.quantizer = usable_quantizer_method(method).options;
  options.corrections = usable_quantizer_method(method).corrections;
  if (options.corrections.rank != 0) options.corrections.rank = kRank;
  return options;
}

class CorrectedCompress : public ::testing::Test {
 protected:
  std::filesystem::path out() const { return folder_.path() / "out.gguf"; }
  CompressResult run(const CompressOptions& options, const metrics::WindowSet* text) {
    return compress_model(source_, out(), text, options, log_);
  }
  model::Checkpoint source_ = testing::open_tiny(WINNOW_SOURCE_DIR, "dense-first");
  TemporaryFolder folder_;
  TestLog log_;
  metrics::WindowSet text_ = random_windows(6, 30);
};

TEST_F(CorrectedCompress, WritesFactorsBesideEveryQuantisedMatrixWithinTheBudget) {
  for (const char* method : {"lorc", "lorc-hessian"}) {
    const CompressResult result = run(with(method, 7), &text_);
    const auto written = model::Checkpoint::open(out());
    std::size_t corrected = 0;
    for (const TensorGroup& group : result.groups) {
      const GroupOption& option = group.options[group.chosen];
      const auto ref = written.at(group.role, group.layer);
      ASSERT_EQ(ref.low_rank != nullptr, option.rank > 0) << group.name();
      EXPECT_EQ(&ref.codec(), option.codec) << group.name();
      EXPECT_EQ(ref.stored_bytes().value * group.parts, option.payload.value) << group.name();
      if (ref.low_rank == nullptr) continue;
      EXPECT_EQ(ref.low_rank->right.rows, kRank);
      ++corrected;
    }
    EXPECT_GT(corrected, 3U);
    EXPECT_EQ(result.tensor_bytes, written.tensor_bytes());
    EXPECT_LE(8.0 * static_cast<double>(result.tensor_bytes.value),
              7.0 * static_cast<double>(source_.num_parameters()));
    EXPECT_EQ(std::filesystem::file_size(out()), result.file_bytes.value);
    std::filesystem::remove(out());
  }
}

TEST_F(CorrectedCompress, FitsABudgetOfBytesWithTheDirectoryOfItsFactors) {
  CompressOptions options = with("lorc", 0);
  options.bits_per_weight.reset();
  options.file_budget = Bytes{1};
  const std::string message = error_of([&] { run(options, &text_); }, ErrorCode::kBudget);
  const std::string before = "possible file has ";
  const std::uint64_t least = std::stoull(message.substr(message.find(before) + before.size()));
  for (const std::uint64_t more : {0U, 20000U, 300000U}) {
    options.file_budget = Bytes{least + more};
    run(options, &text_);
    EXPECT_LE(std::filesystem::file_size(out()), least + more);
    EXPECT_GE(std::filesystem::file_size(out()), least);
  }
}

// The same codes: what differs is the correction.
TEST_F(CorrectedCompress, NoOptionErrsMoreThanWithoutItsCorrection) {
  const CompressResult plain = run(with("rtn", 8), &text_);
  const CompressResult corrected = run(with("lorc", 8), &text_);
  std::size_t less = 0;
  for (std::size_t g = 0; g < plain.groups.size(); ++g) {
    for (std::size_t i = 0; i < plain.groups[g].options.size(); ++i) {
      const GroupOption& with_it = corrected.groups[g].options[i];
      const GroupOption& without = plain.groups[g].options[i];
      EXPECT_LE(with_it.error, without.error) << plain.groups[g].name();
      EXPECT_EQ(with_it.rank > 0, with_it.payload > without.payload);
      if (with_it.error < without.error) ++less;
    }
  }
  EXPECT_GT(less, 50U);
}

TEST_F(CorrectedCompress, WritesTheSameBytesWithAnyNumberOfThreadsAndWhereverItIsStopped) {
  TestLog counting;
  compress_model(source_, out(), &text_, with("lorc", 7), counting);
  const std::string bytes = file_bytes(out());
  std::filesystem::remove(out());
  CompressOptions threads = with("lorc", 7);
  threads.engine.threads = 3;
  run(threads, &text_);
  EXPECT_EQ(file_bytes(out()), bytes);
  std::filesystem::remove(out());
  int kept = 0;
  for (int calls = 0; calls < counting.asked; calls += counting.asked / 4) {
    TestLog stop(calls);
    error_of([&] { compress_model(source_, out(), &text_, with("lorc", 7), stop); },
             ErrorCode::kInterrupted);
    if (names_in(folder_.path()) == std::vector<std::string>{"out.gguf.partial"}) ++kept;
    std::filesystem::remove(out());
    run(with("lorc", 7), &text_);
    EXPECT_EQ(file_bytes(out()), bytes) << "stopped after " << calls;
    std::filesystem::remove(out());
  }
  EXPECT_GT(kept, 1);
}

TEST_F(CorrectedCompress, AnotherRankIsAnotherRun) {
  CompressOptions options = with("lorc", 7);
  TestLog counting;
  compress_model(source_, out(), &text_, options, counting);
  std::filesystem::remove(out());
  TestLog stop(counting.asked / 2);
  error_of([&] { compress_model(source_, out(), &text_, options, stop); }, ErrorCode::kInterrupted);
  options.corrections.rank = 3;
  const std::string message = error_of([&] { run(options, &text_); }, ErrorCode::kUsage);
  EXPECT_THAT(message, HasSubstr("correction_rank"));
}

TEST_F(CorrectedCompress, IsRefusedWithoutTextOrItsHessians) {
  EXPECT_THAT(error_of([&] { run(with("lorc", 8), nullptr); }, ErrorCode::kUsage),
              HasSubstr("--data"));
  CompressOptions diagonal = with("lorc", 8);
  diagonal.hessians = HessianScope::kDiagonal;
  EXPECT_THAT(error_of([&] { run(diagonal, &text_); }, ErrorCode::kUsage), HasSubstr("--hessians"));
}

TEST_F(CorrectedCompress, IsNoSourceForAnotherCompression) {
  run(with("lorc", 8), &text_);
  const auto written = model::Checkpoint::open(out());
  const std::string message = error_of(
      [&] { compress_model(written, folder_.path() / "again.gguf", &text_, with("rtn", 7), log_); },
      ErrorCode::kBadData);
  EXPECT_THAT(message, HasSubstr("convert"));
  EXPECT_THAT(message, HasSubstr("out.gguf"));
}

}  // namespace
}  // namespace winnow::compress::corrected_compress_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Statistics files that are damaged, or are something else.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "base/error.h"
#include "compress/profiler.h"
#include "compress/statistics_file.h"
#include "compress/statistics_merge.h"
#include "compress/testing.h"
#include "formats/test_files.h"
#include "model/test_models.h"

namespace winnow::compress::statistics_reader_test {
namespace {

using model::testing::error_of;
using testing::file_bytes;

class StatisticsFiles : public ::testing::Test {
 protected:
  StatisticsFiles() {
    profile_model(model_, testing::random_windows(8, 9), path("s"), testing::profile_options(),
                  log_);
    bytes_ = file_bytes(path("s"));
  }
  std::filesystem::path path(const std::string& name) const { return folder_.path() / name; }
  Error error_with(const std::string& bytes) {
    os::write_text_file(path("changed"), bytes);
    return error_of([&] { StatisticsFile::open(path("changed")); });
  }
  std::string replaced(const std::string& from, const std::string& to) const {
    EXPECT_EQ(from.size(), to.size());
    std::string bytes = bytes_;
    const auto at = bytes.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return bytes.replace(at, to.size(), to);
  }

  formats::testing::TemporaryFolder folder_;
  model::Checkpoint model_ = testing::open_tiny(WINNOW_SOURCE_DIR, "plain");
  testing::TestLog log_;
  std::string bytes_;
};

TEST_F(StatisticsFiles, OfUnknownVersionsAreRefused) {
  const Error error = error_with(replaced("\\\"format_version\\\":1", "\\\"format_version\\\":9"));
  EXPECT_EQ(error.code(), ErrorCode::kBadData);
  EXPECT_NE(error.message().find("version 9"), std::string::npos) << error.message();
}

TEST_F(StatisticsFiles, ThatAreCutShortAnywhereAreRefused) {
  for (std::size_t size = 0; size < bytes_.size(); size += 1 + bytes_.size() / 60) {
    EXPECT_EQ(error_with(bytes_.substr(0, size)).code(), ErrorCode::kBadData) << size;
  }
}

TEST_F(StatisticsFiles, WhoseHitsDoNotMatchTheirTokensAreRefused) {
  const Error error = error_with(replaced("\\\"tokens\\\":70", "\\\"tokens\\\":71"));
  EXPECT_EQ(error.code(), ErrorCode::kBadData);
  EXPECT_NE(error.message().find("hits"), std::string::npos) << error.message();
}

TEST_F(StatisticsFiles, OfMoreLayersThanArraysAreRefusedAtOnce) {
  std::string bytes = bytes_;
  const std::string layers = "\\\"num_hidden_layers\\\":2,";
  const auto at = bytes.find(layers);
  ASSERT_NE(at, std::string::npos);
  bytes.replace(at, layers.size(), "\\\"num_hidden_layers\\\":9223372036854775807,");
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  header += 18;
  std::memcpy(bytes.data(), &header, sizeof header);
  const Error error = error_with(bytes);
  EXPECT_EQ(error.code(), ErrorCode::kBadData);
  EXPECT_NE(error.message().find("too few"), std::string::npos) << error.message();
}

TEST_F(StatisticsFiles, WithMoreSequencesHeldOutThanThereAreAreRefused) {
  const Error error =
      error_with(replaced("\\\"held_out_sequences\\\":1", "\\\"held_out_sequences\\\":9"));
  EXPECT_NE(error.message().find("9 of 8"), std::string::npos) << error.message();
}

TEST_F(StatisticsFiles, WithSumsThatAreNotNumbersAreNotAddedUp) {
  const auto file = StatisticsFile::open(path("s"));
  const auto* info = file.find(layer_prefix(0, LayerId{0}) + "weight_sums");
  ASSERT_NE(info, nullptr);
  std::string bytes = bytes_;
  const double bad = std::numeric_limits<double>::infinity();
  std::memcpy(bytes.data() + info->offset, &bad, sizeof bad);
  os::write_text_file(path("bad"), bytes);
  const Error error = error_of([&] {
    merge_statistics(model_, std::vector{path("bad")}, path("out"), "test",
                     PartialOutput::Start::kResume, log_);
  });
  EXPECT_EQ(error.code(), ErrorCode::kBadData);
  EXPECT_NE(error.message().find("weight_sums"), std::string::npos) << error.message();
  EXPECT_FALSE(std::filesystem::exists(path("out.partial")));
}

TEST_F(StatisticsFiles, AreNotSafetensorsModels) {
  const auto model = std::filesystem::path(WINNOW_SOURCE_DIR) /
                     "testdata/models/qwen3_moe-plain/model.safetensors";
  const Error error = error_of([&] { StatisticsFile::open(model); });
  EXPECT_EQ(error.code(), ErrorCode::kBadData);
  EXPECT_NE(error.message().find("statistics"), std::string::npos) << error.message();
}

TEST_F(StatisticsFiles, NameArraysThatAreMissingOrOfAnotherType) {
  const auto file = StatisticsFile::open(path("s"));
  EXPECT_NE(error_of([&] { file.doubles("nothing"); }).message().find("'nothing'"),
            std::string::npos);
  const std::string hits = layer_prefix(0, LayerId{0}) + "hits";
  EXPECT_NE(error_of([&] { file.doubles(hits); }).message().find("U64"), std::string::npos);
}

}  // namespace
}  // namespace winnow::compress::statistics_reader_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/compress_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compress/testing.h"
#include "formats/expect_error.h"

namespace winnow::compress::compress_checks_test {
namespace {

using formats::testing::error_of;
using ::testing::HasSubstr;

/// Every way to run matrices with the vectors of the source, by the flag that asks for it.
std::vector<std::pair<std::string, CompressOptions>> runners(const std::string& transforms) {
  CompressOptions plain;
  plain.transforms = wishes_of_names(transforms);
  std::vector<std::pair<std::string, CompressOptions>> all(4, {"", plain});
  all[0].first = "--sequential";
  all[0].second.sequential = true;
  all[1].first = "--tolerance";
  all[1].second.tolerance = 0.1;
  all[2].first = "--allocation search";
  all[2].second.allocation.kind = Allocation::kSearch;
  all[3].first = "--allocation ranked";
  all[3].second.allocation.kind = Allocation::kRanked;
  return all;
}

TEST(CompressChecks, MatricesThatNeedOtherVectorsAreNotRunWithTheOriginalOnes) {
  for (const auto& [model, transforms] :
       {std::pair("plain", "attention-input"), std::pair("plain", "ffn-input"),
        std::pair("attention-bias", "value-scales"), std::pair("attention-bias", "value-rotation"),
        std::pair("attention-bias", "inner-order,value-scales")}) {
    const auto source = testing::open_tiny(WINNOW_SOURCE_DIR, model);
    for (const auto& runner : runners(transforms)) {
      const std::string message = error_of(
          [&] { check_compress_options(source, runner.second, true, true); }, ErrorCode::kUsage);
      EXPECT_THAT(message, HasSubstr(runner.first)) << model << ", " << transforms;
      EXPECT_THAT(message, HasSubstr("norms and biases"));
    }
    CompressOptions written;
    written.transforms = wishes_of_names(transforms);
    EXPECT_NO_THROW(check_compress_options(source, written, true, true));
  }
}

TEST(CompressChecks, OthersAreRunAsTheyAre) {
  for (const auto& [model, transforms] :
       {std::pair("plain", "inner-order,inner-scales,value-scales,value-rotation"),
        std::pair("attention-bias", "inner-order,inner-scales")}) {
    const auto source = testing::open_tiny(WINNOW_SOURCE_DIR, model);
    for (const auto& [flag, options] : runners(transforms)) {
      EXPECT_NO_THROW(check_compress_options(source, options, true, true)) << flag;
    }
  }
}

}  // namespace
}  // namespace winnow::compress::compress_checks_test

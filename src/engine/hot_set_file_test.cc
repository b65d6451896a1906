// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/hot_set_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "formats/expect_error.h"
#include "formats/test_files.h"

namespace winnow::engine::hot_set_file_test {
namespace {

using formats::testing::error_of;
using ::testing::HasSubstr;

class HotSetFile : public ::testing::Test {
 protected:
  std::string refusal(const std::string& text, ErrorCode code = ErrorCode::kBadData) {
    std::ofstream(path_) << text;
    return error_of([&] { (void)read_hot_set(path_, "grain:12"); }, code);
  }
  formats::testing::TemporaryFolder folder_;
  std::filesystem::path path_ = folder_.path() / "hot.json";
};

TEST_F(HotSetFile, ReadsWhatWasWritten) {
  const std::vector<experts::ExpertUses> hottest = {
      {LayerId{3}, ExpertId{7}, 100}, {LayerId{0}, ExpertId{1}, 100}, {LayerId{9}, ExpertId{0}, 1}};
  write_hot_set(path_, "grain:12", hottest);
  EXPECT_EQ(read_hot_set(path_, "grain:12"), hottest);
  write_hot_set(path_, "grain:12", {});
  EXPECT_TRUE(read_hot_set(path_, "grain:12").empty());
}

TEST_F(HotSetFile, RefusesThatOfAnotherModel) {
  write_hot_set(path_, "grain:13", {});
  const std::string message =
      error_of([&] { (void)read_hot_set(path_, "grain:12"); }, ErrorCode::kUsage);
  EXPECT_THAT(message, HasSubstr("hot.json"));
  EXPECT_THAT(message, HasSubstr("grain:13"));
}

TEST_F(HotSetFile, RefusesWhatIsNone) {
  EXPECT_THAT(refusal("notes"), HasSubstr("hot.json"));
  EXPECT_THAT(refusal("[]"), HasSubstr("no hot set"));
  EXPECT_THAT(refusal(R"({"format":"winnow-trace"})"), HasSubstr("no hot set"));
  EXPECT_THAT(refusal(R"({"format":"winnow-hot-set"})"), HasSubstr("'format_version'"));
  const std::string begin = R"({"format":"winnow-hot-set","source":"grain:12","format_version":)";
  EXPECT_THAT(refusal(begin + R"(2,"experts":[]})"), HasSubstr("version 2"));
  EXPECT_THAT(refusal(begin + R"(1,"experts":5})"), HasSubstr("not a list"));
  for (const char* entry : {"5", "[]", "[1,2]", "[1,2,3,4]", "[1,2,-3]", "[1,4294967296,1]",
                            "[1.5,2,3]", "[1,2,\"3\"]", "[1,2,9007199254740993]"}) {
    EXPECT_THAT(refusal(begin + R"(1,"experts":[[1,2,3],)" + entry + "]}"), HasSubstr("entry 1"))
        << entry;
  }
}

}  // namespace
}  // namespace winnow::engine::hot_set_file_test

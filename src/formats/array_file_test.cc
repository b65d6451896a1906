// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "formats/array_file.h"

#include <gtest/gtest.h>

#include "formats/safetensors.h"
#include "formats/test_files.h"

namespace winnow::formats::array_file_test {
namespace {

using Texts = std::vector<std::pair<std::string, std::string>>;

const Texts kTexts = {{"format", "test"}, {"about", R"({"a":1})"}};
const std::vector<PlannedArray> kArrays = {{"long", "U64", {2}, 16}, {"short", "U16", {1, 3}, 6}};

TEST(ArrayFile, HasTextsThenArraysInTheirOrder) {
  std::string json = R"({"__metadata__":{"format":"test","about":"{\"a\":1}"},)"
                     R"("long":{"dtype":"U64","shape":[2],"data_offsets":[0,16]},)"
                     R"("short":{"dtype":"U16","shape":[1,3],"data_offsets":[16,22]}})";
  while (json.size() % 8 != 0) json += ' ';
  const std::string length = {static_cast<char>(json.size()), 0, 0, 0, 0, 0, 0, 0};
  ASSERT_LT(json.size(), 256U);
  EXPECT_EQ(array_file_header(kTexts, kArrays), length + json);
}

TEST(ArrayFile, IsReadAsASafetensorsFile) {
  const auto file =
      testing::memory_file("m", array_file_header(kTexts, kArrays) + std::string(22, 'x'));
  const std::vector<TensorInfo> arrays = parse_safetensors_header(*file);
  ASSERT_EQ(arrays.size(), 2U);
  EXPECT_EQ(arrays[1].name, "short");
  EXPECT_EQ(arrays[1].size, Bytes{6});
  const auto texts = array_file_texts(*file);
  EXPECT_EQ(texts, (std::map<std::string, std::string>(kTexts.begin(), kTexts.end())));
}

TEST(ArrayFile, MayHaveNoTexts) {
  EXPECT_TRUE(array_file_texts(*testing::memory_file("m", array_file_header({}, {}))).empty());
}

}  // namespace
}  // namespace winnow::formats::array_file_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "formats/metadata.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "formats/expect_error.h"
#include "formats/names.h"

namespace winnow::formats::metadata_test {
namespace {

using ::testing::AllOf;
using testing::error_of;
using ::testing::HasSubstr;

Metadata sample() {
  Metadata metadata("m.gguf");
  metadata.set("u8", std::uint8_t{200});
  metadata.set("i32", std::int32_t{7});
  metadata.set("negative", std::int64_t{-1});
  metadata.set("f32", 0.5F);
  metadata.set("nan", std::nan(""));
  metadata.set("bool", true);
  metadata.set("text", std::string("hello"));
  metadata.set("words", Array(std::vector<std::string>{"a", "b"}));
  metadata.set("i16s", Array(std::vector<std::int16_t>{-3, 4}));
  metadata.set("u64s", Array(std::vector<std::uint64_t>{~0ULL}));
  metadata.set("f32s", Array(std::vector<float>{0.25F}));
  metadata.set("bools", Array(std::vector<bool>{true}));
  return metadata;
}

TEST(Metadata, GetsValuesOfEveryWidth) {
  const Metadata metadata = sample();
  EXPECT_EQ(metadata.integer("u8"), 200U);
  EXPECT_EQ(metadata.integer("i32"), 7U);
  EXPECT_EQ(metadata.number("f32"), 0.5);
  EXPECT_EQ(metadata.number("negative"), -1.0);
  EXPECT_TRUE(metadata.boolean("bool"));
  EXPECT_EQ(metadata.string("text"), "hello");
  EXPECT_EQ(metadata.strings("words"), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(metadata.integers("i16s"), (std::vector<std::int64_t>{-3, 4}));
  EXPECT_EQ(metadata.numbers("f32s"), (std::vector<double>{0.25}));
  EXPECT_EQ(metadata.numbers("i16s"), (std::vector<double>{-3, 4}));
}

TEST(Metadata, NamesFileKeyAndBothTypesInErrors) {
  const Metadata metadata = sample();
  const auto all = [](const char* key, const char* found, const char* expected) {
    return AllOf(HasSubstr("m.gguf"), HasSubstr(key), HasSubstr(found), HasSubstr(expected));
  };
  EXPECT_THAT(error_of([&] { metadata.string("u8"); }), all("'u8'", "type u8", "expected string"));
  EXPECT_THAT(error_of([&] { metadata.integer("f32"); }), all("'f32'", "type f32", "an integer"));
  EXPECT_THAT(error_of([&] { metadata.integer("bool"); }),
              all("'bool'", "type bool", "an integer"));
  EXPECT_THAT(error_of([&] { metadata.number("text"); }), all("'text'", "type string", "a number"));
  EXPECT_THAT(error_of([&] { metadata.boolean("i32"); }), all("'i32'", "type i32", "bool"));
  EXPECT_THAT(error_of([&] { metadata.strings("i16s"); }),
              all("'i16s'", "array of i16", "array of string"));
  EXPECT_THAT(error_of([&] { metadata.strings("text"); }),
              all("'text'", "string", "array of string"));
  EXPECT_THAT(error_of([&] { metadata.integers("f32s"); }),
              all("'f32s'", "array of f32", "integers"));
  EXPECT_THAT(error_of([&] { metadata.integers("bools"); }),
              all("'bools'", "array of bool", "integers"));
  EXPECT_THAT(error_of([&] { metadata.numbers("words"); }),
              all("'words'", "array of string", "numbers"));
}

TEST(Metadata, RefusesValuesThatDoNotFit) {
  const Metadata metadata = sample();
  EXPECT_THAT(error_of([&] { metadata.integer("negative"); }), HasSubstr("'negative' is -1"));
  EXPECT_THAT(error_of([&] { metadata.number("nan"); }), HasSubstr("finite"));
  EXPECT_THAT(error_of([&] { metadata.integers("u64s"); }), HasSubstr("element 0"));
  EXPECT_THAT(error_of([&] { metadata.string("none"); }), HasSubstr("'none' is missing"));
}

TEST(Metadata, KeepsTheOrderWhenAValueIsReplacedOrErased) {
  Metadata metadata = sample();
  metadata.set("u8", std::string("now text"));
  EXPECT_EQ(metadata.entries()[0].first, "u8");
  EXPECT_EQ(metadata.string("u8"), "now text");
  metadata.erase("i32");
  metadata.erase("never there");
  EXPECT_FALSE(metadata.contains("i32"));
  EXPECT_EQ(metadata.entries()[1].first, "negative");
  EXPECT_EQ(metadata.string("text"), "hello");
  metadata.set("i32", true);
  EXPECT_EQ(metadata.entries().back().first, "i32");
  EXPECT_TRUE(metadata.boolean("i32"));
}

TEST(Names, AreUtf8WithoutControlCharacters) {
  EXPECT_EQ(name_defect("blk.0.ffn_gate_exps.weight"), "");
  EXPECT_EQ(name_defect("\u00e9\u4f60\U0001F600"), "");
  for (const char* bad : {"", "a\x01", "\x80", "\xC1\x81", "\xE0\x80\x80", "\xED\xA0\x80",
                          "\xF4\x90\x80\x80", "\xF8\x88\x80\x80\x80", "\xE4\xBD", "a\x7F"}) {
    EXPECT_NE(name_defect(bad), "") << quote_name(bad);
  }
}

TEST(Names, AreShownWithoutHarm) {
  EXPECT_EQ(quote_name("a\n\xFF\u00e9"), "'a\\x0a\\xff\u00e9'");
  EXPECT_LT(quote_name(std::string(1 << 20, 'x')).size(), 120U);
}

}  // namespace
}  // namespace winnow::formats::metadata_test

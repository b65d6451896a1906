// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Key-values of GGUF files, good and hostile. gguf_tensors_test.cc has the tensor directory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/expect_error.h"
#include "formats/gguf.h"
#include "formats/test_files.h"

namespace winnow::formats::gguf_reader_test {
namespace {

using ::testing::AllOf;
using testing::error_of;
using testing::gguf_string;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::le;
using testing::memory_file;
using ::testing::Values;

constexpr std::uint32_t kU8 = 0, kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kText = 8, kArray = 9,
                        kU64 = 10;

std::unique_ptr<ModelFile> read(const std::string& bytes) {
  return read_gguf(memory_file("m.gguf", bytes));
}

std::string refusal(const std::string& bytes) {
  return error_of([&] { read(bytes); });
}

std::string refusal(const GgufBuilder& builder) { return refusal(builder.build()); }

/// A file with a little of everything.
std::string small_file() {
  GgufBuilder builder;
  builder.key("general.architecture", kText, gguf_string("test"))
      .key("numbers", kArray, le(kU32) + le(std::uint64_t{3}) + std::string(12, '\1'))
      .key("words", kArray, le(kText) + le(std::uint64_t{2}) + gguf_string("a") + gguf_string(""))
      .tensor("norm.weight", {8}, 0, 0)
      .tensor("exps.weight", {32, 2, 2}, 8, 32);
  return builder.build(32 + 4 * 34);
}

TEST(GgufReader, ReadsKeysAndTensorsOfASmallFile) {
  const auto model = read(small_file());
  EXPECT_EQ(model->format(), "GGUF");
  EXPECT_EQ(model->name(), "m.gguf");
  EXPECT_EQ(model->metadata().string("general.architecture"), "test");
  EXPECT_EQ(model->metadata().strings("words"), (std::vector<std::string>{"a", ""}));
  const TensorInfo* tensor = model->find("exps.weight");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->shape, (tensor::Shape{2, 2, 32}));
  EXPECT_EQ(tensor->type_name, "Q8_0");
  EXPECT_EQ(tensor->size, Bytes{4 * 34});
  EXPECT_EQ(model->find("exps.weigh"), nullptr);
  EXPECT_EQ(model->find("norm.weighty"), nullptr);
  std::array<std::byte, 2> bytes{};
  model->read(*tensor, 1, bytes);
  EXPECT_EQ(bytes[0], std::byte{static_cast<std::uint8_t>(33 * 7 + 3)});
}

TEST(GgufReader, ReadsVersion2LikeVersion3) {
  GgufBuilder builder;
  builder.version = 2;
  builder.key("k", kU8, "\5");
  EXPECT_EQ(read(builder.build())->metadata().integer("k"), 5U);
}

TEST(GgufReader, RefusesEveryTruncation) {
  const std::string whole = small_file();
  ASSERT_NO_THROW(read(whole));
  for (std::size_t length = 0; length < whole.size(); ++length) {
    EXPECT_THAT(refusal(whole.substr(0, length)), HasSubstr("m.gguf")) << length;
  }
}

TEST(GgufReader, RefusesALargerFileTruncatedAtEveryPercent) {
  GgufBuilder builder;
  for (int i = 0; i < 500; ++i) {
    builder.key(fmt::format("key.{}", i), kText, gguf_string(std::string(i, 'x')));
    builder.tensor(fmt::format("t.{}", i), {64}, 0, 256 * static_cast<std::uint64_t>(i));
  }
  const std::string whole = builder.build(500 * 256);
  ASSERT_NO_THROW(read(whole));
  for (std::size_t percent = 0; percent < 100; ++percent) {
    EXPECT_THAT(refusal(whole.substr(0, whole.size() * percent / 100)), HasSubstr("offset"));
  }
}

TEST(GgufReader, SaysWhichVersionsItReads) {
  GgufBuilder builder;
  builder.version = 1;
  EXPECT_THAT(refusal(builder), AllOf(HasSubstr("version 1"), HasSubstr("2 and 3")));
  builder.version = 0x03000000;
  EXPECT_THAT(refusal(builder), HasSubstr("big-endian"));
  builder.version = 4;
  EXPECT_THAT(refusal(builder), HasSubstr("version 4"));
  builder.version = 0;
  EXPECT_THAT(refusal(builder), HasSubstr("version 0"));
}

TEST(GgufReader, RefusesAnotherMagic) {
  EXPECT_THAT(refusal("GGML" + std::string(100, '\0')), HasSubstr("does not begin with 'GGUF'"));
}

class GgufCount : public ::testing::TestWithParam<std::uint64_t> {};
INSTANTIATE_TEST_SUITE_P(Hostile, GgufCount,
                         Values(1ULL << 31, 1ULL << 32, 1ULL << 60, 1ULL << 61, 1ULL << 63, ~0ULL,
                                ~0ULL / 14 + 2, ~0ULL / 25 + 2));

TEST_P(GgufCount, IsRefusedAsNumberOfTensors) {
  GgufBuilder builder;
  builder.claimed_tensors = GetParam();
  EXPECT_THAT(refusal(builder), AllOf(HasSubstr("tensors cannot fit"), HasSubstr("offset 16")));
}

TEST_P(GgufCount, IsRefusedAsNumberOfKeys) {
  GgufBuilder builder;
  builder.claimed_keys = GetParam();
  EXPECT_THAT(refusal(builder), AllOf(HasSubstr("keys cannot fit"), HasSubstr("offset 24")));
}

TEST_P(GgufCount, IsRefusedAsLengthOfAKey) {
  GgufBuilder builder;
  builder.claimed_keys = 1;
  EXPECT_THAT(refusal(builder.build() + le(GetParam()) + std::string(20, 'k')),
              AllOf(HasSubstr("key number 0"), HasSubstr("offset 32")));
}

TEST_P(GgufCount, IsRefusedAsLengthOfAString) {
  GgufBuilder builder;
  builder.key("k", kText, le(GetParam()) + "text");
  EXPECT_THAT(refusal(builder), AllOf(HasSubstr("key 'k'"), HasSubstr("cannot fit")));
}

TEST_P(GgufCount, IsRefusedAsLengthOfAnArrayOfAnyType) {
  for (std::uint32_t type = 0; type <= 12; ++type) {
    if (type == kArray) continue;
    GgufBuilder builder;
    builder.key("k", kArray, le(type) + le(GetParam()) + "0123456789abcdef");
    EXPECT_THAT(refusal(builder), AllOf(HasSubstr("key 'k'"), HasSubstr("elements cannot fit")));
  }
}

TEST_P(GgufCount, IsRefusedAsLengthOfAStringInAnArray) {
  GgufBuilder builder;
  builder.key("k", kArray, le(kText) + le(std::uint64_t{1}) + le(GetParam()) + "text");
  EXPECT_THAT(refusal(builder), HasSubstr("key 'k'"));
}

TEST(GgufReader, RefusesMoreKeysThanItsLimit) {
  GgufBuilder builder;
  for (int i = 0; i < 65537; ++i) builder.key(fmt::format("{:x}", i), kU8, "x");
  EXPECT_THAT(refusal(builder), HasSubstr("limit of 65536"));
}

TEST(GgufReader, RefusesMoreTensorsThanItsLimit) {
  GgufBuilder builder;
  builder.claimed_tensors = 1'000'001;
  EXPECT_THAT(refusal(builder.build() + std::string(25 * 1'000'001, '\0')),
              HasSubstr("limit of 1000000"));
}

TEST(GgufReader, RefusesAStringLongerThanItsLimit) {
  GgufBuilder builder;
  const std::uint64_t length = (64 << 20) + 1;
  builder.key("k", kText, le(length) + std::string(length, 'x'));
  EXPECT_THAT(refusal(builder), HasSubstr("longer than the limit"));
}

TEST(GgufReader, RefusesDuplicateKeysAndSaysWhere) {
  GgufBuilder builder;
  builder.key("twin", kU8, "1").key("twin", kU8, "2");
  EXPECT_THAT(refusal(builder),
              AllOf(HasSubstr("'twin'"), HasSubstr("twice"), HasSubstr("offset")));
}

TEST(GgufReader, RefusesNamesThatAreEmptyOrUnprintable) {
  EXPECT_THAT(refusal(GgufBuilder().key("", kU8, "1____")), HasSubstr("is empty"));
  EXPECT_THAT(refusal(GgufBuilder().key("a\xFF", kU8, "1")), HasSubstr("'a\\xff' is not UTF-8"));
  EXPECT_THAT(refusal(GgufBuilder().key("a\n", kU8, "1")), HasSubstr("control character"));
  EXPECT_THAT(refusal(GgufBuilder().key(std::string(65536, 'k'), kU8, "1")),
              HasSubstr("limit 65535"));
  EXPECT_THAT(refusal(GgufBuilder().tensor("", {1}, 0, 0).build(32)), HasSubstr("is empty"));
  EXPECT_THAT(refusal(GgufBuilder().tensor("\xC0\x80", {1}, 0, 0).build(32)),
              HasSubstr("not UTF-8"));
}

TEST(GgufReader, RefusesNestedArraysAndUnknownTypes) {
  EXPECT_THAT(refusal(GgufBuilder().key("k", kArray, le(kArray) + std::string(16, '\0'))),
              HasSubstr("arrays of arrays"));
  EXPECT_THAT(refusal(GgufBuilder().key("k", 13, "12345678")), HasSubstr("unknown value type 13"));
  EXPECT_THAT(refusal(GgufBuilder().key("k", ~0U, "12345678")), HasSubstr("unknown value type"));
  EXPECT_THAT(refusal(GgufBuilder().key("k", kArray, le(13U) + std::string(16, '\0'))),
              HasSubstr("unknown element type 13"));
}

TEST(GgufReader, RefusesBoolsOtherThan0And1) {
  EXPECT_THAT(refusal(GgufBuilder().key("k", kBool, "\2")), HasSubstr("bool is stored as 2"));
  const std::string array = le(kBool) + le(std::uint64_t{3}) + std::string("\0\1\xFF", 3);
  EXPECT_THAT(refusal(GgufBuilder().key("k", kArray, array)), HasSubstr("bool is stored as 255"));
}

class GgufAlignment : public ::testing::TestWithParam<std::uint32_t> {};
INSTANTIATE_TEST_SUITE_P(Hostile, GgufAlignment,
                         Values(0U, 1U, 3U, 4U, 33U, 1U << 21, 1U << 31, ~0U));

TEST_P(GgufAlignment, IsRefusedUnlessAPowerOfTwoInRange) {
  GgufBuilder builder;
  builder.key("general.alignment", kU32, le(GetParam())).tensor("t", {8}, 0, 0);
  EXPECT_THAT(refusal(builder.build(64)),
              AllOf(HasSubstr("'general.alignment'"), HasSubstr("power of two")));
}

TEST(GgufReader, RefusesAnAlignmentOfAnotherType) {
  for (const auto& [type, payload] :
       {std::pair{kI32, le(32)}, std::pair{kU64, le(std::uint64_t{32})}, std::pair{kF32, le(32.0F)},
        std::pair{kText, gguf_string("32")}}) {
    GgufBuilder builder;
    builder.key("general.alignment", type, payload).tensor("t", {8}, 0, 0);
    EXPECT_THAT(refusal(builder.build(64)), HasSubstr("must be of type u32"));
  }
}

TEST(GgufReader, PlacesTheDataByTheAlignmentOfTheFile) {
  GgufBuilder builder;
  builder.alignment = 4096;
  builder.key("general.alignment", kU32, le(4096U)).tensor("t", {8}, 0, 4096);
  const auto model = read(builder.build(4096 + 32));
  EXPECT_EQ(model->tensors()[0].offset, 8192U);
}

}  // namespace
}  // namespace winnow::formats::gguf_reader_test

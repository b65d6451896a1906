// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The tensor directory and the splits of GGUF files, good and hostile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "formats/expect_error.h"
#include "formats/gguf.h"
#include "formats/test_files.h"

namespace winnow::formats::gguf_tensors_test {
namespace {

using ::testing::AllOf;
using testing::error_of;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::le;
using testing::memory_file;

constexpr std::uint32_t kF32 = 0;

std::unique_ptr<ModelFile> read(const std::string& bytes) {
  return read_gguf(memory_file("m.gguf", bytes));
}

std::string refusal(const GgufBuilder& builder, std::uint64_t data_bytes) {
  return error_of([&] { read(builder.build(data_bytes)); });
}

TEST(GgufTensors, AreRefusedWhenTheyEndPastTheFile) {
  GgufBuilder builder;
  builder.tensor("good", {8}, kF32, 0).tensor("long", {9}, kF32, 32);
  EXPECT_NO_THROW(read(builder.build(32 + 36)));
  EXPECT_THAT(refusal(builder, 32 + 35),
              AllOf(HasSubstr("tensor 'long'"), HasSubstr("36 bytes at data offset 32"),
                    HasSubstr("end past the file")));
}

TEST(GgufTensors, AreRefusedAtOffsetsPastTheFileOrWrapping) {
  for (const std::uint64_t offset :
       {std::uint64_t{64}, std::uint64_t{1} << 40, std::uint64_t{1} << 63, ~std::uint64_t{31}}) {
    GgufBuilder builder;
    builder.tensor("t", {8}, kF32, offset);
    EXPECT_THAT(refusal(builder, 64), HasSubstr("end past the file")) << offset;
  }
}

TEST(GgufTensors, AreRefusedWhenTheyOverlap) {
  GgufBuilder builder;
  builder.tensor("later", {8}, kF32, 32).tensor("first", {9}, kF32, 0);
  EXPECT_THAT(refusal(builder, 64),
              AllOf(HasSubstr("'later'"), HasSubstr("overlaps"), HasSubstr("'first'")));
}

TEST(GgufTensors, AreRefusedAtTheSameOffset) {
  GgufBuilder builder;
  builder.tensor("a", {8}, kF32, 0).tensor("b", {8}, kF32, 0);
  EXPECT_THAT(refusal(builder, 64), HasSubstr("overlaps"));
}

TEST(GgufTensors, AreRefusedOffTheAlignment) {
  GgufBuilder builder;
  builder.tensor("t", {8}, kF32, 16);
  EXPECT_THAT(refusal(builder, 64), HasSubstr("no multiple of the alignment 32"));
}

TEST(GgufTensors, AreRefusedWithADuplicateName) {
  GgufBuilder builder;
  builder.tensor("twin", {8}, kF32, 0).tensor("other", {8}, kF32, 32).tensor("twin", {8}, kF32, 64);
  EXPECT_THAT(refusal(builder, 96), AllOf(HasSubstr("'twin' occurs twice"), HasSubstr("offset")));
}

TEST(GgufTensors, AreRefusedWithMoreThanFourDimensionsOrAnEmptyOne) {
  EXPECT_THAT(refusal(GgufBuilder().tensor("t", {1, 1, 1, 1, 1}, kF32, 0), 64),
              HasSubstr("5 dimensions"));
  EXPECT_THAT(refusal(GgufBuilder().tensor("t", {8, 0}, kF32, 0), 64),
              HasSubstr("dimension 1 is 0"));
}

TEST(GgufTensors, MayBeScalars) {
  const auto model = read(GgufBuilder().tensor("t", {}, kF32, 0).build(4));
  EXPECT_EQ(model->tensors()[0].shape.rank(), 0U);
  EXPECT_EQ(model->tensors()[0].size, Bytes{4});
}

/// Numbers of all types whose layout is known.
std::vector<GgufLayout> known_layouts(std::uint32_t smallest_block = 1) {
  std::vector<GgufLayout> layouts;
  for (std::uint32_t type = 0; type < 256; ++type) {
    const auto layout = find_gguf_layout(type);
    if (layout && layout->block_size >= smallest_block) layouts.push_back(*layout);
  }
  return layouts;
}

std::string name_of(const ::testing::TestParamInfo<GgufLayout>& layout) {
  return std::string(layout.param.name);
}

class GgufType : public ::testing::TestWithParam<GgufLayout> {};
INSTANTIATE_TEST_SUITE_P(Known, GgufType, ::testing::ValuesIn(known_layouts()), name_of);

class GgufBlockType : public GgufType {};
INSTANTIATE_TEST_SUITE_P(Known, GgufBlockType, ::testing::ValuesIn(known_layouts(2)), name_of);

TEST_P(GgufType, IsListedWithItsBytes) {
  const GgufLayout& type = GetParam();
  GgufBuilder builder;
  builder.tensor("t", {2 * type.block_size, 3}, type.type, 0);
  const auto model = read(builder.build(6 * type.block_bytes));
  EXPECT_EQ(model->tensors()[0].type_name, type.name);
  EXPECT_EQ(model->tensors()[0].size, Bytes{6 * type.block_bytes});
  EXPECT_THAT(refusal(builder, 6 * type.block_bytes - 1), HasSubstr("end past the file"));
}

TEST_P(GgufType, IsRefusedWhenDimensionsOrBytesOverflow) {
  const GgufLayout& type = GetParam();
  const std::uint64_t block = type.block_size;
  const std::uint64_t largest = std::numeric_limits<std::uint64_t>::max();
  // The fewest blocks whose bytes pass 2^64, or 2^64 - 1 blocks of one byte.
  const std::uint64_t blocks_that_wrap = largest / type.block_bytes + (type.block_bytes > 1);
  const std::vector<std::vector<std::uint64_t>> shapes = {
      {largest / block * block},          {1ULL << 63},
      {block, largest / block + 1},       {block, 1ULL << 32, 1ULL << 32},
      {block, 1ULL << 31, 1ULL << 31, 4}, {block, 1ULL << 62},
      {block, blocks_that_wrap},          {block, blocks_that_wrap / 2 + 1, 2},
      {block, largest, largest, largest},
  };
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    GgufBuilder builder;
    builder.tensor("huge", shapes[i], type.type, 0);
    EXPECT_THAT(refusal(builder, 4096), HasSubstr("tensor 'huge'")) << "shape " << i;
  }
}

TEST_P(GgufBlockType, IsRefusedWhenRowsDoNotDivideIntoBlocks) {
  const GgufLayout& type = GetParam();
  GgufBuilder builder;
  builder.tensor("t", {type.block_size + 1, type.block_size}, type.type, 0);
  EXPECT_THAT(refusal(builder, 1 << 20), HasSubstr("do not divide"));
}

TEST(GgufTensors, AreRefusedWhenTheirSizesTogetherWrap) {
  // Each is below 2^63 bytes, four of them pass 2^64: every end is checked, not only the sum.
  GgufBuilder builder;
  for (std::uint64_t i = 0; i < 4; ++i) {
    builder.tensor(fmt::format("t{}", i), {1ULL << 60}, kF32, i << 62);
  }
  EXPECT_THAT(refusal(builder, 4096), HasSubstr("end past the file"));
}

TEST(GgufTensors, OfAnUnknownTypeAreListedWithoutCodec) {
  GgufBuilder builder;
  builder.tensor("odd", {77}, 99, 32).tensor("t", {8}, kF32, 0);
  const auto model = read(builder.build(64));
  const TensorInfo* odd = model->find("odd");
  ASSERT_NE(odd, nullptr);
  EXPECT_EQ(odd->codec, nullptr);
  EXPECT_EQ(odd->type_name, "type 99");
  EXPECT_EQ(odd->size, Bytes{0});
  EXPECT_THAT(refusal(builder, 32), HasSubstr("tensor 'odd'"));
}

TEST(GgufTensors, OfAnUnknownTypeStillNeedSaneDimensions) {
  GgufBuilder builder;
  builder.tensor("odd", {1ULL << 40, 1ULL << 40}, 99, 0);
  EXPECT_THAT(refusal(builder, 64), HasSubstr("overflows"));
}

/// The splits of a model by path, each with one tensor.
class GgufSplits : public ::testing::Test {
 protected:
  static constexpr std::uint32_t kU16 = 2, kI32 = 5;

  static std::string split(std::uint16_t number, std::uint16_t count, std::int32_t tensors = 3) {
    GgufBuilder builder;
    builder.key("split.no", kU16, le(number))
        .key("split.count", kU16, le(count))
        .key("split.tensors.count", kI32, le(tensors))
        .tensor(fmt::format("t{}", number), {8}, kF32, 0);
    return builder.build(32);
  }

  std::unique_ptr<ModelFile> open(const std::string& name) {
    return read_gguf(memory_file(name, files_.at(name)), [&](const std::filesystem::path& path) {
      const auto found = files_.find(path.string());
      if (found == files_.end()) fail_data("{}: no such file", path.string());
      return memory_file(found->first, found->second);
    });
  }
  std::string open_refusal(const std::string& name = "d/m-00001-of-00003.gguf") {
    return error_of([&] { open(name); });
  }

  std::map<std::string, std::string> files_ = {{"d/m-00001-of-00003.gguf", split(0, 3)},
                                               {"d/m-00002-of-00003.gguf", split(1, 3)},
                                               {"d/m-00003-of-00003.gguf", split(2, 3)}};
};

TEST_F(GgufSplits, AreOpenedTogether) {
  const auto model = open("d/m-00001-of-00003.gguf");
  EXPECT_EQ(model->files().size(), 3U);
  ASSERT_NE(model->find("t2"), nullptr);
  EXPECT_EQ(model->find("t2")->file, 2U);
  std::array<std::byte, 32> bytes{};
  model->read(*model->find("t2"), 0, bytes);
  EXPECT_EQ(bytes[1], std::byte{10});
  EXPECT_FALSE(model->metadata().contains("split.count"));
}

TEST_F(GgufSplits, SayWhichOneToOpen) {
  EXPECT_THAT(open_refusal("d/m-00002-of-00003.gguf"),
              AllOf(HasSubstr("split 2 of 3"), HasSubstr("-00001-of-00003.gguf")));
}

TEST_F(GgufSplits, AreRefusedWhenOneIsMissing) {
  files_.erase("d/m-00003-of-00003.gguf");
  EXPECT_THAT(open_refusal(), AllOf(HasSubstr("opening split 3 of 3"), HasSubstr("no such file")));
}

TEST_F(GgufSplits, AreRefusedWhenTwoAreSwapped) {
  std::swap(files_["d/m-00002-of-00003.gguf"], files_["d/m-00003-of-00003.gguf"]);
  EXPECT_THAT(open_refusal(), AllOf(HasSubstr("m-00002-of-00003.gguf"), HasSubstr("renamed")));
}

TEST_F(GgufSplits, AreRefusedWhenOneBelongsToAnotherModel) {
  files_["d/m-00002-of-00003.gguf"] = split(1, 4);
  EXPECT_THAT(open_refusal(), HasSubstr("split 2 of 4"));
}

TEST_F(GgufSplits, AreRefusedWhenTheFirstHasAnotherName) {
  files_["d/model.gguf"] = split(0, 3);
  EXPECT_THAT(open_refusal("d/model.gguf"), HasSubstr("must end in '-00001-of-00003.gguf'"));
}

TEST_F(GgufSplits, AreRefusedWhenTensorsAreMissingOrTwice) {
  files_["d/m-00001-of-00003.gguf"] = split(0, 3, 4);
  EXPECT_THAT(open_refusal(), HasSubstr("promises 4 tensors, the 3 splits hold 3"));
  files_["d/m-00001-of-00003.gguf"] = GgufBuilder()
                                          .key("split.count", kU16, le(std::uint16_t{3}))
                                          .tensor("t1", {8}, kF32, 0)
                                          .build(32);
  EXPECT_THAT(open_refusal(), AllOf(HasSubstr("'t1' occurs twice"), HasSubstr("m-00002-of-00003")));
}

TEST_F(GgufSplits, AreRefusedWhenTheirNumbersAreOfAnotherType) {
  files_["d/m-00001-of-00003.gguf"] =
      GgufBuilder().key("split.count", 6, le(3.0F)).tensor("t", {8}, kF32, 0).build(32);
  EXPECT_THAT(open_refusal(), HasSubstr("key 'split.count' is of type f32"));
  files_["d/m-00001-of-00003.gguf"] = GgufBuilder().key("split.no", kI32, le(-1)).build();
  EXPECT_THAT(open_refusal(), HasSubstr("key 'split.no' is -1"));
  files_["d/m-00001-of-00003.gguf"] =
      GgufBuilder().key("split.count", 10, le(std::uint64_t{1} << 60)).build();
  EXPECT_THAT(open_refusal(), HasSubstr("more than the limit of 99999"));
}

}  // namespace
}  // namespace winnow::formats::gguf_tensors_test

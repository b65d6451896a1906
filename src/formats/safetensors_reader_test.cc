// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Headers and indices of safetensors models, good and hostile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/expect_error.h"
#include "formats/safetensors.h"
#include "formats/test_files.h"

namespace winnow::formats::safetensors_reader_test {
namespace {

using ::testing::AllOf;
using testing::error_of;
using ::testing::HasSubstr;
using testing::le;
using testing::memory_file;
using testing::safetensors_file;

std::unique_ptr<ModelFile> read(const std::string& bytes) {
  return read_safetensors(memory_file("m.safetensors", bytes));
}

std::string refusal(std::string_view header, std::uint64_t data_bytes = 0) {
  const std::string message = error_of([&] { read(safetensors_file(header, data_bytes)); });
  EXPECT_THAT(message, HasSubstr("m.safetensors"));
  return message;
}

/// The header of one tensor 't' with these fields.
std::string one(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return fmt::format(R"({{"t":{{"dtype":"{}","shape":{},"data_offsets":{}}}}})", dtype, shape,
                     offsets);
}

constexpr std::string_view kTwo = R"({"__metadata__":{"format":"pt"},)"
                                  R"("b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},)"
                                  R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}   )";

TEST(SafetensorsReader, ReadsTensorsInFileOrder) {
  const auto model = read(safetensors_file(kTwo, 20));
  EXPECT_EQ(model->format(), "safetensors");
  ASSERT_EQ(model->tensors().size(), 2U);
  EXPECT_EQ(model->tensors()[0].name, "a");
  EXPECT_EQ(model->tensors()[0].offset, 8 + kTwo.size());
  EXPECT_EQ(model->find("b")->shape, (tensor::Shape{2, 3}));
  EXPECT_EQ(model->find("b")->codec, quant::find_codec("BF16"));
  EXPECT_EQ(model->find("b")->size, Bytes{12});
  std::array<std::byte, 2> bytes{};
  model->read(*model->find("b"), 10, bytes);
  EXPECT_EQ(bytes[1], std::byte{19 * 5 + 1});
  EXPECT_EQ(model->sidecar("config.json"), "");
}

TEST(SafetensorsReader, ListsTypesItCannotDecode) {
  const auto model = read(safetensors_file(one("F8_E4M3", "[3]", "[0,3]"), 3));
  EXPECT_EQ(model->tensors()[0].codec, nullptr);
  EXPECT_EQ(model->tensors()[0].type_name, "F8_E4M3");
  EXPECT_EQ(read(safetensors_file(one("F4", "[6]", "[0,3]"), 3))->tensors()[0].size, Bytes{3});
  EXPECT_THAT(refusal(one("F4", "[5]", "[0,3]"), 3), HasSubstr("takes 20 bits"));
  EXPECT_THAT(refusal(one("F128", "[1]", "[0,16]"), 16), HasSubstr("'F128'"));
}

TEST(SafetensorsReader, AcceptsEmptyTensorsAndScalars) {
  EXPECT_EQ(read(safetensors_file(one("F32", "[]", "[0,4]"), 4))->tensors()[0].size, Bytes{4});
  const auto empty = read(safetensors_file(one("F32", "[0,7]", "[0,0]"), 0));
  EXPECT_EQ(empty->tensors()[0].size, Bytes{0});
}

TEST(SafetensorsReader, RefusesEveryTruncation) {
  const std::string whole = safetensors_file(kTwo, 20);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    EXPECT_THAT(error_of([&] { read(whole.substr(0, length)); }), HasSubstr("m.safetensors"))
        << length;
  }
}

TEST(SafetensorsReader, RefusesALargerFileTruncatedAtEveryPercent) {
  std::string header = "{";
  for (int i = 0; i < 300; ++i) {
    header += fmt::format(R"({}"t{}":{{"dtype":"F16","shape":[50],"data_offsets":[{},{}]}})",
                          i == 0 ? "" : ",", i, 100 * i, 100 * (i + 1));
  }
  const std::string whole = safetensors_file(header + "}", 30000);
  ASSERT_NO_THROW(read(whole));
  for (std::size_t percent = 0; percent < 100; ++percent) {
    error_of([&] { read(whole.substr(0, whole.size() * percent / 100)); });
  }
}

TEST(SafetensorsReader, RefusesHeadersLongerThanTheFileOrTheCap) {
  for (const std::uint64_t length : {3ULL, 1ULL << 31, 1ULL << 32, 1ULL << 60, ~0ULL}) {
    EXPECT_THAT(error_of([&] { read(le(length) + "{}"); }),
                AllOf(HasSubstr("m.safetensors"), HasSubstr("cannot fit"), HasSubstr("offset 8")));
  }
  const std::string over_cap = le(std::uint64_t{100'000'001}) + std::string(100'000'001, ' ');
  EXPECT_THAT(error_of([&] { read(over_cap); }), HasSubstr("limit is 100000000"));
}

TEST(SafetensorsReader, RefusesHeadersThatAreNoJsonObject) {
  EXPECT_THAT(refusal(""), HasSubstr("does not begin with '{'"));
  EXPECT_THAT(refusal("[1]"), HasSubstr("does not begin with '{'"));
  EXPECT_THAT(refusal(" {}"), HasSubstr("does not begin with '{'"));
  EXPECT_THAT(refusal("{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal("{}{}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal("{} // no"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal(R"({"t":NaN})"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal(R"({"t":5})"), HasSubstr("tensor 't' is an integer"));
  EXPECT_THAT(refusal(R"({"t":[]})"), HasSubstr("tensor 't' is an array"));
}

TEST(SafetensorsReader, RefusesDeepNestingWithoutRecursion) {
  EXPECT_THAT(refusal("{\"t\":" + std::string(1 << 20, '[')), HasSubstr("is an array"));
  EXPECT_THAT(refusal(one("F32", std::string(1 << 20, '['), "[0,4]")), HasSubstr("nested deeper"));
  std::string objects = "{";
  for (int i = 0; i < 100000; ++i) objects += "\"t\":{";
  EXPECT_THAT(refusal(objects), HasSubstr("tensor 't'"));
}

TEST(SafetensorsReader, RefusesDuplicateKeys) {
  EXPECT_THAT(refusal(R"({"twin":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                      R"("twin":{"dtype":"F32","shape":[],"data_offsets":[4,8]}})",
                      8),
              HasSubstr("'twin' occurs twice"));
  EXPECT_THAT(refusal(R"({"t":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,4]}})", 4),
              HasSubstr("'dtype' occurs twice"));
}

TEST(SafetensorsReader, RefusesOffsetsThatAreNoOffsets) {
  EXPECT_THAT(refusal(one("F32", "[1]", "[0.0,4]"), 4), HasSubstr("a number that is no integer"));
  EXPECT_THAT(refusal(one("F32", "[1]", "[0,4e0]"), 4), HasSubstr("a number that is no integer"));
  EXPECT_THAT(refusal(one("F32", "[1]", "[-4,0]"), 4), HasSubstr("a negative number"));
  EXPECT_THAT(refusal(one("F32", "[1]", R"(["0",4])"), 4), HasSubstr("a string"));
  EXPECT_THAT(refusal(one("F32", "[1]", "[0,18446744073709551620]"), 4), HasSubstr("no integer"));
  EXPECT_THAT(refusal(one("F32", "[1]", "[0]"), 4), HasSubstr("1 'data_offsets'"));
  EXPECT_THAT(refusal(one("F32", "[1]", "[0,4,4]"), 4), HasSubstr("more than 2"));
  EXPECT_THAT(refusal(one("F32", "[1]", "4"), 4), HasSubstr("'data_offsets' is an integer"));
  EXPECT_THAT(refusal(one("F32", "[1]", "[4,0]"), 4), HasSubstr("4..0"));
  EXPECT_THAT(refusal(one("F32", "[1]", "[0,8]"), 4),
              AllOf(HasSubstr("tensor 't'"), HasSubstr("0..8"), HasSubstr("4 bytes of data")));
  EXPECT_THAT(refusal(one("F32", "[1]", "[18446744073709551612,18446744073709551615]"), 4),
              HasSubstr("4 bytes of data"));
}

TEST(SafetensorsReader, RefusesShapesThatDisagreeWithTheBytes) {
  EXPECT_THAT(refusal(one("F32", "[2]", "[0,4]"), 4), HasSubstr("takes 64 bits"));
  EXPECT_THAT(refusal(one("BF16", "[2,-1]", "[0,4]"), 4), HasSubstr("a negative number"));
  EXPECT_THAT(refusal(one("F32", "[1.5]", "[0,4]"), 4), HasSubstr("no integer"));
  EXPECT_THAT(refusal(one("F32", "[1,1,1,1,1]", "[0,4]"), 4), HasSubstr("more than 4"));
  for (const char* dims :
       {"[9223372036854775808]", "[4611686018427387905]", "[4294967296,4294967296]",
        "[9223372036854775808,2]", "[18446744073709551615,18446744073709551615]",
        "[2305843009213693953]", "[1073741824,2147483649,8]"}) {
    EXPECT_THAT(refusal(one("F32", dims, "[0,4]"), 4), HasSubstr("tensor 't'")) << dims;
  }
}

TEST(SafetensorsReader, RefusesMissingAndUnknownFields) {
  EXPECT_THAT(refusal(R"({"t":{"shape":[1],"data_offsets":[0,4]}})", 4), HasSubstr("no 'dtype'"));
  EXPECT_THAT(refusal(R"({"t":{"dtype":"F32","data_offsets":[0,4]}})", 4), HasSubstr("no 'shape'"));
  EXPECT_THAT(refusal(R"({"t":{"dtype":"F32","shape":[1]}})", 4), HasSubstr("no 'data_offsets'"));
  EXPECT_THAT(refusal(R"({"t":{"dtype":4,"shape":[1],"data_offsets":[0,4]}})", 4),
              HasSubstr("'dtype' is an integer"));
  EXPECT_THAT(refusal(R"({"t":{"x":1,"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4),
              HasSubstr("key 'x'"));
  EXPECT_THAT(refusal(R"({"t":{"x":{},"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4),
              HasSubstr("unexpected object"));
}

TEST(SafetensorsReader, RefusesOverlapsGapsAndTrailingBytes) {
  const auto two = [](int begin, int end) {
    return fmt::format(R"({{"a":{{"dtype":"U8","shape":[8],"data_offsets":[0,8]}},)"
                       R"("b":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}}}})",
                       end - begin, begin, end);
  };
  EXPECT_NO_THROW(read(safetensors_file(two(8, 16), 16)));
  EXPECT_THAT(refusal(two(7, 16), 16),
              AllOf(HasSubstr("'b'"), HasSubstr("overlaps"), HasSubstr("'a'")));
  EXPECT_THAT(refusal(two(0, 8), 8), HasSubstr("overlaps"));
  EXPECT_THAT(refusal(two(9, 16), 16), HasSubstr("leaving a hole"));
  EXPECT_THAT(refusal(two(8, 16), 17), HasSubstr("1 bytes at offset"));
  EXPECT_THAT(refusal(one("F32", "[1]", "[1,5]"), 5), HasSubstr("hole"));
  EXPECT_THAT(refusal("{}", 1), HasSubstr("belong to no tensor"));
}

TEST(SafetensorsReader, RefusesBadNames) {
  EXPECT_THAT(refusal(R"({"":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})", 4),
              HasSubstr("is empty"));
  EXPECT_THAT(refusal(R"({"a\u0000":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})", 4),
              HasSubstr("control character"));
  EXPECT_THAT(refusal("{\"\xC3(\":{}}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal(R"({"\ud800":{}})"), HasSubstr("not valid JSON"));
}

TEST(SafetensorsReader, RefusesMetadataOtherThanStrings) {
  EXPECT_THAT(refusal(R"({"__metadata__":{"k":1}})"), HasSubstr("'__metadata__': key 'k'"));
  EXPECT_THAT(refusal(R"({"__metadata__":{"k":null}})"), HasSubstr("expected a string"));
  EXPECT_THAT(refusal(R"({"__metadata__":{"k":{}}})"), HasSubstr("unexpected object"));
  EXPECT_THAT(refusal(R"({"__metadata__":{"shape":[]}})"), HasSubstr("unexpected array"));
  EXPECT_THAT(refusal(R"({"__metadata__":[]})"), HasSubstr("is an array"));
  EXPECT_THAT(refusal(R"({"__metadata__":"x"})"), HasSubstr("is a string"));
}

/// An index over shards s1 (tensors a, b) and s2 (tensor c).
class SafetensorsIndex : public ::testing::Test {
 protected:
  static std::string shard(std::initializer_list<std::string_view> names) {
    std::string header = "{";
    std::size_t offset = 0;
    for (const std::string_view name : names) {
      header += fmt::format(R"({}"{}":{{"dtype":"F32","shape":[1],"data_offsets":[{},{}]}})",
                            offset == 0 ? "" : ",", name, offset, offset + 4);
      offset += 4;
    }
    return safetensors_file(header + "}", offset);
  }

  std::unique_ptr<ModelFile> open(const std::string& index) {
    return read_safetensors_index("d/index.json", index, [&](const std::filesystem::path& path) {
      opened_.push_back(path.string());
      const auto found = files_.find(path.string());
      if (found == files_.end()) fail_data("{}: no such file", path.string());
      return memory_file(found->first, found->second);
    });
  }
  std::string index_refusal(const std::string& index = kGood) {
    const std::string message = error_of([&] { open(index); });
    EXPECT_THAT(message, HasSubstr("index.json"));
    return message;
  }

  static constexpr const char* kGood =
      R"({"metadata":{"total_size":12},"weight_map":{"a":"s1","b":"s1","c":"s2"}})";
  std::map<std::string, std::string> files_ = {{"d/s1", shard({"a", "b"})}, {"d/s2", shard({"c"})}};
  std::vector<std::string> opened_;
};

TEST_F(SafetensorsIndex, OpensEachShardOnce) {
  const auto model = open(kGood);
  EXPECT_EQ(opened_, (std::vector<std::string>{"d/s1", "d/s2"}));
  EXPECT_EQ(model->name(), "d");
  EXPECT_EQ(model->tensors().size(), 3U);
  EXPECT_EQ(model->find("c")->file, 1U);
}

TEST_F(SafetensorsIndex, RefusesPathsThatLeaveTheFolder) {
  for (const char* path :
       {"../../etc/passwd", "/etc/passwd", "..", ".", "", "sub/s1", "a\\\\b", "s1\\u0000"}) {
    EXPECT_THAT(index_refusal(fmt::format(R"({{"weight_map":{{"a":"{}"}}}})", path)),
                AllOf(HasSubstr("tensor 'a'"), HasSubstr("same folder")))
        << path;
  }
  EXPECT_TRUE(opened_.empty());
}

TEST_F(SafetensorsIndex, RefusesATensorThatNoShardHolds) {
  EXPECT_THAT(index_refusal(R"({"weight_map":{"a":"s1","b":"s1","c":"s2","d":"s2"}})"),
              AllOf(HasSubstr("'d'"), HasSubstr("is not in 's2'")));
}

TEST_F(SafetensorsIndex, RefusesATensorThatItDoesNotList) {
  EXPECT_THAT(index_refusal(R"({"weight_map":{"a":"s1","c":"s2"}})"),
              AllOf(HasSubstr("d/s1"), HasSubstr("'b'"), HasSubstr("not in the index")));
}

TEST_F(SafetensorsIndex, RefusesATensorInTwoShards) {
  files_["d/s2"] = shard({"c", "a"});
  EXPECT_THAT(index_refusal(),
              AllOf(HasSubstr("d/s2"), HasSubstr("'a'"), HasSubstr("belongs into 's1'")));
}

TEST_F(SafetensorsIndex, RefusesAMissingShard) {
  files_.erase("d/s2");
  EXPECT_THAT(index_refusal(), HasSubstr("d/s2: no such file"));
}

TEST_F(SafetensorsIndex, RefusesAnythingButAMapOfStrings) {
  EXPECT_THAT(index_refusal("{}"), HasSubstr("no 'weight_map'"));
  EXPECT_THAT(index_refusal("[]"), HasSubstr("is an array"));
  EXPECT_THAT(index_refusal(R"({"weight_map":[]})"), HasSubstr("'weight_map' is an array"));
  EXPECT_THAT(index_refusal(R"({"weight_map":"s1"})"), HasSubstr("'weight_map' is a string"));
  EXPECT_THAT(index_refusal(R"({"weight_map":{"a":5}})"), HasSubstr("is in an integer"));
  EXPECT_THAT(index_refusal(R"({"weight_map":{"a":["s1"]}})"), HasSubstr("'a' is no file name"));
  EXPECT_THAT(index_refusal(R"({"weight_map":{"a":"s1","a":"s2"}})"),
              HasSubstr("'a' occurs twice"));
  EXPECT_THAT(index_refusal(R"({"metadata":)" + std::string(100, '[')), HasSubstr("nested deeper"));
  EXPECT_THAT(index_refusal("true"), HasSubstr("no 'weight_map'"));
}

}  // namespace
}  // namespace winnow::formats::safetensors_reader_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Choosing the format of a path, reading payloads, and what opening may allocate.
#include "formats/model_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "formats/counting_new.h"
#include "formats/expect_error.h"
#include "formats/format.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "formats/test_files.h"

namespace winnow::formats::model_file_test {
namespace {

using ::testing::AllOf;
using testing::error_of;
using testing::gguf_string;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::le;
using testing::memory_file;
using testing::safetensors_file;

TEST(OpenModel, RecognisesAFormatByContentNotByName) {
  const testing::TemporaryFolder folder;
  const auto path = folder.path() / "model.bin";
  os::write_text_file(path, GgufBuilder().key("k", 0, "1").build());
  EXPECT_EQ(open_model(path)->format(), "GGUF");
  os::write_text_file(path, safetensors_file("{}", 0));
  EXPECT_EQ(open_model(path)->format(), "safetensors");
}

TEST(OpenModel, SaysWhatItExpects) {
  const testing::TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { open_model(folder.path() / "none"); }), HasSubstr("no such file"));
  os::write_text_file(folder.path() / "x", "hello world");
  EXPECT_THAT(error_of([&] { open_model(folder.path() / "x"); }),
              AllOf(HasSubstr("not a model file"), HasSubstr("GGUF"), HasSubstr("safetensors")));
  os::write_text_file(folder.path() / "x", "");
  EXPECT_THAT(error_of([&] { open_model(folder.path() / "x"); }), HasSubstr("not a model file"));
  EXPECT_THAT(error_of([&] { open_model(folder.path()); }),
              HasSubstr("neither model.safetensors nor model.safetensors.index.json"));
}

TEST(OpenModel, FindsSidecarsBesideASingleFile) {
  const testing::TemporaryFolder folder;
  os::write_text_file(folder.path() / "m.safetensors", safetensors_file("{}", 0));
  os::write_text_file(folder.path() / "config.json", "{}");
  const auto model = open_model(folder.path() / "m.safetensors");
  EXPECT_EQ(model->sidecar("config.json"), "{}");
  EXPECT_EQ(model->sidecar("tokenizer.json"), "");
  EXPECT_THROW(model->sidecar("../config.json"), Error);
}

TEST(OpenModel, BoundsTheSizeOfASidecar) {
  const testing::TemporaryFolder folder;
  os::write_text_file(folder.path() / "model.safetensors", safetensors_file("{}", 0));
  os::write_text_file(folder.path() / "config.json", "");
  std::filesystem::resize_file(folder.path() / "config.json", (64 << 20) + 1);
  const auto model = open_model(folder.path());
  EXPECT_THAT(error_of([&] { model->sidecar("config.json"); }), HasSubstr("config.json"));
}

TEST(FormatRegistry, HoldsEveryReaderFile) {
  std::size_t readers = 0;
  for (const auto& file : std::filesystem::directory_iterator(WINNOW_SOURCE_DIR "/src/formats")) {
    readers += file.path().string().ends_with("_reader.cc");
  }
  EXPECT_EQ(all_formats().size(), readers);
}

TEST(ModelFile, NamesTheTensorWhenAReadFails) {
  const testing::TemporaryFolder folder;
  const auto path = folder.path() / "m.gguf";
  os::write_text_file(path, GgufBuilder().tensor("t", {8}, 0, 0).build(32));
  const auto model = open_model(path);
  std::filesystem::resize_file(path, 70);
  std::array<std::byte, 32> bytes{};
  EXPECT_THAT(error_of([&] { model->read(model->tensors()[0], 0, bytes); }),
              AllOf(HasSubstr("tensor 't'"), HasSubstr("m.gguf"), HasSubstr("truncated")));
}

TEST(ModelFile, ReadsOnlyInsideATensor) {
  const auto model = read_gguf(memory_file("m", GgufBuilder().tensor("t", {8}, 0, 0).build(64)));
  std::array<std::byte, 8> bytes{};
  const TensorInfo& tensor = model->tensors()[0];
  EXPECT_NO_THROW(model->read(tensor, 24, bytes));
  EXPECT_THROW(model->read(tensor, 25, bytes), Error);
  EXPECT_THROW(model->read(tensor, ~0ULL - 3, bytes), Error);
}

/// What opening a file that must be refused allocates in all.
std::uint64_t bytes_to_refuse(const std::string& bytes, bool is_gguf) {
  auto file = memory_file("hostile", bytes);
  const std::uint64_t before = testing::allocated_bytes();
  EXPECT_THROW(is_gguf ? read_gguf(std::move(file)) : read_safetensors(std::move(file)), Error);
  return testing::allocated_bytes() - before;
}

TEST(ModelFile, RefusesTinyFilesWithHugeClaimsWithoutAllocating) {
  constexpr std::uint64_t kMost = 100 << 10;  // a read buffer and some messages
  for (const std::uint64_t count : {1ULL << 20, 1ULL << 31, 1ULL << 40, 1ULL << 60, ~0ULL}) {
    GgufBuilder tensors;
    tensors.claimed_tensors = count;
    EXPECT_LT(bytes_to_refuse(tensors.build() + std::string(76, '\0'), true), kMost);
    GgufBuilder keys;
    keys.claimed_keys = count;
    EXPECT_LT(bytes_to_refuse(keys.build() + std::string(76, '\0'), true), kMost);
    for (std::uint32_t type = 0; type <= 12; ++type) {
      const auto array = GgufBuilder().key("k", 9, le(type) + le(std::uint64_t{count}));
      EXPECT_LT(bytes_to_refuse(array.build() + std::string(40, '\0'), true), kMost);
    }
    const auto text = GgufBuilder().key("k", 8, le(std::uint64_t{count}));
    EXPECT_LT(bytes_to_refuse(text.build() + std::string(40, '\0'), true), kMost);
    const auto tensor = GgufBuilder().tensor("t", {count}, 0, 0);
    EXPECT_LT(bytes_to_refuse(tensor.build(32), true), kMost);
    EXPECT_LT(bytes_to_refuse(le(std::uint64_t{count}) + "{}", false), kMost);
  }
}

/// `copies` times a piece of a header, to see how memory grows with the file.
std::string repeated(std::string_view piece, std::size_t copies) {
  std::string text;
  for (std::size_t i = 0; i < copies; ++i) {
    text += fmt::format(fmt::runtime(piece), i);
  }
  return text;
}

TEST(ModelFile, AllocatesInProportionToTheFile) {
  // Doubling of vectors, a copy of the text and nodes of the duplicate check included.
  constexpr std::uint64_t kMostPerByte = 40;
  const std::vector<std::string> headers = {
      "{" + repeated("\"{}\":{{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}},", 20000) +
          "x",
      "{\"__metadata__\":{" + repeated("\"{}\":\"\",", 100000) + "x",
      "{\"t\":{\"shape\":[" + repeated("0,", 100000) + "x",
  };
  for (const std::string& header : headers) {
    EXPECT_LT(bytes_to_refuse(safetensors_file(header, 0), false), kMostPerByte * header.size());
  }
  const std::string words = GgufBuilder().key("k", 9, le(8U) + le(std::uint64_t{100000})).build() +
                            std::string(800000, '\0') + "x";
  EXPECT_NO_THROW(read_gguf(memory_file("words", words)));
  GgufBuilder tensors;
  for (std::uint64_t i = 0; i < 20000; ++i) tensors.tensor(fmt::format("{}", i), {8}, 0, 32 * i);
  EXPECT_LT(bytes_to_refuse(tensors.build(), true), kMostPerByte * tensors.build().size());
}

TEST(ModelFile, RefusesManyTensorsQuickly) {
  GgufBuilder builder;
  for (std::uint64_t i = 0; i < 200000; ++i) builder.tensor(fmt::format("{}", i), {8}, 0, 32 * i);
  const std::string file = builder.build(32 * 200000 - 1);
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_GT(bytes_to_refuse(file, true), 0U);
  // Milliseconds when linear, minutes when quadratic; wide, since machines are busy.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

}  // namespace
}  // namespace winnow::formats::model_file_test

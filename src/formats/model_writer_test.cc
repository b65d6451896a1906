// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Both writers: what is written is read back, and nothing half-written is ever found.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>

#include "base/rng.h"
#include "formats/expect_error.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "formats/test_files.h"

namespace winnow::formats::model_writer_test {
namespace {

using testing::error_of;
using ::testing::HasSubstr;

std::string file_bytes(const std::filesystem::path& path) {
  return os::read_text_file(path, {64 << 20});
}

template <typename T>
T random_scalar(Rng& rng) {
  if constexpr (std::is_same_v<T, bool>) {
    return rng.below(2) == 1;
  } else if constexpr (std::is_same_v<T, std::string>) {
    std::string text(rng.below(40), '\0');
    for (char& c : text) c = static_cast<char>(rng.below(256));
    return text;
  } else if constexpr (std::is_floating_point_v<T>) {
    return static_cast<T>(rng.normal());
  } else {
    return static_cast<T>(rng.next());
  }
}

template <std::size_t I>
Value random_array(Rng& rng) {
  std::variant_alternative_t<I, Array> elements(rng.below(20));
  for (std::size_t i = 0; i < elements.size(); ++i) {
    elements[i] = random_scalar<typename decltype(elements)::value_type>(rng);
  }
  return Array(std::in_place_index<I>, std::move(elements));
}

/// A key of every type and of an array of every type, in random order and number.
Metadata random_metadata(Rng& rng) {
  using Make = Value (*)(Rng&);
  const auto scalars = []<std::size_t... I>(std::index_sequence<I...>) {
    return std::vector<Make>{[](Rng& r) -> Value {
      using T = std::variant_alternative_t<I, Value>;
      if constexpr (std::is_same_v<T, Array>) {
        return random_array<0>(r);
      } else {
        return Value(std::in_place_index<I>, random_scalar<T>(r));
      }
    }...};
  }
  (std::make_index_sequence<std::variant_size_v<Value>>());
  const auto arrays = []<std::size_t... I>(std::index_sequence<I...>) {
    return std::vector<Make>{&random_array<I>...};
  }
  (std::make_index_sequence<std::variant_size_v<Array>>());
  Metadata metadata;
  for (int i = 0; i < 60; ++i) {
    const auto& makers = rng.below(2) == 0 ? scalars : arrays;
    metadata.set(fmt::format("key.{}", i), makers[rng.below(makers.size())](rng));
  }
  return metadata;
}

std::vector<PlannedTensor> random_tensors(Rng& rng, std::span<const quant::Codec* const> codecs) {
  std::vector<PlannedTensor> tensors;
  const std::uint64_t count = rng.below(12);
  for (std::uint64_t i = 0; i < count; ++i) {
    const quant::Codec* codec = codecs[rng.below(codecs.size())];
    std::vector<std::uint64_t> dims(1 + rng.below(4));
    for (auto& dim : dims) dim = 1 + rng.below(3);
    dims.back() *= codec->block_size;
    tensors.push_back(
        {fmt::format("t.{}", i), codec, tensor::Shape{std::span<const std::uint64_t>(dims)}});
  }
  return tensors;
}

std::string random_payload(Rng& rng, const PlannedTensor& tensor) {
  std::string bytes(quant::packed_size(*tensor.codec, tensor.shape)->value, '\0');
  for (char& byte : bytes) byte = static_cast<char>(rng.below(256));
  return bytes;
}

/// Appends in pieces of random size, and returns the payloads.
std::vector<std::string> fill(Rng& rng, ModelWriter& writer,
                              std::span<const PlannedTensor> tensors) {
  std::vector<std::string> payloads;
  for (const PlannedTensor& tensor : tensors) {
    payloads.push_back(random_payload(rng, tensor));
    std::string_view rest = payloads.back();
    while (!rest.empty()) {
      const std::size_t piece = std::min<std::size_t>(rest.size(), 1 + rng.below(100));
      writer.append(std::as_bytes(std::span(rest.substr(0, piece))));
      rest.remove_prefix(piece);
    }
  }
  writer.finish();
  return payloads;
}

void expect_same(const ModelFile& model, std::span<const PlannedTensor> tensors,
                 std::span<const std::string> payloads) {
  ASSERT_EQ(model.tensors().size(), tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorInfo& found = model.tensors()[i];
    EXPECT_EQ(found.name, tensors[i].name);
    EXPECT_EQ(found.codec, tensors[i].codec);
    EXPECT_EQ(found.shape, tensors[i].shape);
    std::string bytes(found.size.value, '\0');
    model.read(found, 0, std::as_writable_bytes(std::span(bytes)));
    EXPECT_TRUE(bytes == payloads[i]) << found.name;
  }
}

void copy(const ModelFile& model, ModelWriter& writer) {
  for (const TensorInfo& tensor : model.tensors()) {
    std::vector<std::byte> bytes(tensor.size.value);
    model.read(tensor, 0, bytes);
    writer.append(bytes);
  }
  writer.finish();
}

std::vector<PlannedTensor> plan_of(const ModelFile& model) {
  std::vector<PlannedTensor> plan;
  for (const TensorInfo& tensor : model.tensors()) {
    plan.push_back({tensor.name, tensor.codec, tensor.shape});
  }
  return plan;
}

class ModelWriterTest : public ::testing::Test {
 protected:
  std::size_t entries() const {
    return static_cast<std::size_t>(
        std::distance(std::filesystem::directory_iterator(folder_.path()),
                      std::filesystem::directory_iterator()));
  }
  std::filesystem::path path(std::string_view name) const { return folder_.path() / name; }

  testing::TemporaryFolder folder_;
  const quant::Codec* f32_ = quant::find_codec("F32");
  const quant::Codec* bf16_ = quant::find_codec("BF16");
};

using GgufWriter = ModelWriterTest;
using SafetensorsWriter = ModelWriterTest;

TEST_F(GgufWriter, RoundTripsRandomModelsToIdenticalBytes) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    Rng rng(seed);
    const Metadata metadata = random_metadata(rng);
    const auto tensors = random_tensors(rng, quant::all_codecs());
    const auto payloads = fill(rng, *write_gguf(path("a.gguf"), metadata, tensors), tensors);

    const auto model = open_model(path("a.gguf"));
    EXPECT_EQ(model->metadata().entries(), metadata.entries()) << "seed " << seed;
    expect_same(*model, tensors, payloads);
    copy(*model, *write_gguf(path("b.gguf"), model->metadata(), plan_of(*model)));
    EXPECT_TRUE(file_bytes(path("a.gguf")) == file_bytes(path("b.gguf"))) << "seed " << seed;
  }
}

TEST_F(GgufWriter, KeepsTheBitsOfNotANumber) {
  Metadata metadata;
  metadata.set("nan", std::bit_cast<float>(0x7FC01234U));
  write_gguf(path("a.gguf"), metadata, {})->finish();
  const auto model = open_model(path("a.gguf"));
  EXPECT_EQ(std::bit_cast<std::uint32_t>(std::get<float>(*model->metadata().find("nan"))),
            0x7FC01234U);
}

TEST_F(GgufWriter, LeavesOutTheAlignmentOfItsSource) {
  Metadata metadata;
  metadata.set("general.alignment", std::uint32_t{4096});
  metadata.set("k", true);
  write_gguf(path("a.gguf"), metadata, {})->finish();
  EXPECT_EQ(open_model(path("a.gguf"))->metadata().entries().size(), 1U);
}

TEST_F(GgufWriter, LeavesNothingBehindWhenAbandoned) {
  {
    const auto writer = write_gguf(path("a.gguf"), Metadata(), {{"t", f32_, {4}}});
    writer->append(std::vector<std::byte>(8));
    EXPECT_EQ(entries(), 1U);
  }
  EXPECT_EQ(entries(), 0U);
}

TEST_F(GgufWriter, ChecksThatAllPlannedBytesArrive) {
  const auto writer = write_gguf(path("a.gguf"), Metadata(), {{"t", f32_, {4}}, {"u", f32_, {1}}});
  writer->append(std::vector<std::byte>(12));
  EXPECT_THAT(error_of([&] { writer->append(std::vector<std::byte>(8)); }, ErrorCode::kInternal),
              HasSubstr("tensor 't': 8 bytes were written after 12 of the 16 planned"));
  writer->append(std::vector<std::byte>(4));
  EXPECT_THAT(error_of([&] { writer->finish(); }, ErrorCode::kInternal),
              HasSubstr("tensor 'u': only 0 of 4"));
  writer->append(std::vector<std::byte>(4));
  EXPECT_THAT(error_of([&] { writer->append(std::vector<std::byte>(1)); }, ErrorCode::kInternal),
              HasSubstr("after the last planned tensor"));
  EXPECT_FALSE(std::filesystem::exists(path("a.gguf")));
  writer->finish();
  EXPECT_TRUE(std::filesystem::exists(path("a.gguf")));
}

TEST_F(GgufWriter, RefusesTensorsThatReadersWouldRefuse) {
  const auto refusal = [&](PlannedTensor tensor) {
    return error_of([&] { write_gguf(path("a.gguf"), Metadata(), {std::move(tensor)}); });
  };
  EXPECT_THAT(refusal({"", f32_, {4}}), HasSubstr("is empty"));
  EXPECT_THAT(refusal({std::string(64, 'n'), f32_, {4}}), HasSubstr("longer than the 63 bytes"));
  EXPECT_THAT(refusal({"t", f32_, {0, 4}}), HasSubstr("[0, 4] is empty"));
  EXPECT_THAT(refusal({"t", quant::find_codec("Q8_0"), {33}}), HasSubstr("do not divide"));
  EXPECT_THAT(refusal({"t", f32_, {1ULL << 62}}), HasSubstr("too large"));
  EXPECT_THAT(error_of([&] {
                write_gguf(path("a.gguf"), Metadata(), {{"t", f32_, {4}}, {"t", f32_, {4}}});
              }),
              HasSubstr("'t' is to be written twice"));
  EXPECT_THAT(error_of([&] {
                write_gguf(path("a.gguf"), Metadata(),
                           {{"t", f32_, {(1ULL << 62) - 1}}, {"u", f32_, {(1ULL << 62) - 1}}});
              }),
              HasSubstr("overflow 2^64"));
  EXPECT_EQ(entries(), 0U);
}

TEST_F(SafetensorsWriter, RoundTripsRandomModelsToIdenticalBytes) {
  const std::array codecs = {f32_, bf16_, quant::find_codec("F16")};
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    Rng rng(seed);
    const auto tensors = random_tensors(rng, codecs);
    const SafetensorsOptions options{.max_file_size = {300 + rng.below(2000)},
                                     .sidecars = {{"config.json", "{}\n"}}};
    const auto a = path(fmt::format("a{}", seed));
    const auto b = path(fmt::format("b{}", seed));
    const auto payloads = fill(rng, *write_safetensors(a, tensors, options), tensors);

    const auto model = open_model(a);
    expect_same(*model, tensors, payloads);
    EXPECT_EQ(model->sidecar("config.json"), "{}\n");
    copy(*model, *write_safetensors(b, plan_of(*model), options));
    for (const auto& file : std::filesystem::directory_iterator(a)) {
      EXPECT_TRUE(file_bytes(file.path()) == file_bytes(b / file.path().filename())) << file.path();
    }
  }
}

TEST_F(SafetensorsWriter, SplitsBeforeAFileExceedsTheLimit) {
  std::vector<PlannedTensor> tensors;
  for (int i = 0; i < 10; ++i) tensors.push_back({fmt::format("t{}", i), f32_, {64}});
  Rng rng(1);
  const SafetensorsOptions options{.max_file_size = {1000}, .sidecars = {}};
  fill(rng, *write_safetensors(path("out/"), tensors, options), tensors);
  std::size_t shards = 0;
  for (const auto& file : std::filesystem::directory_iterator(path("out"))) {
    if (file.path().extension() != ".safetensors") continue;
    ++shards;
    EXPECT_LE(file.file_size(), 1000U);
  }
  EXPECT_EQ(shards, 4U);
  EXPECT_TRUE(std::filesystem::exists(path("out/model-00004-of-00004.safetensors")));
  EXPECT_THAT(file_bytes(path("out/model.safetensors.index.json")),
              HasSubstr("\"total_size\": 2560"));
  EXPECT_EQ(open_model(path("out"))->files().size(), 4U);
}

TEST_F(SafetensorsWriter, BeginsAFileRatherThanMisalignATensor) {
  const std::vector<PlannedTensor> tensors = {{"odd", bf16_, {3}}, {"wide", f32_, {2}}};
  Rng rng(1);
  const auto payloads = fill(rng, *write_safetensors(path("out"), tensors, {}), tensors);
  const auto model = open_model(path("out"));
  expect_same(*model, tensors, payloads);
  EXPECT_EQ(model->files().size(), 2U);
  for (const TensorInfo& tensor : model->tensors()) EXPECT_EQ(tensor.offset % 4, 0U);
}

TEST_F(SafetensorsWriter, WritesEmptyTensorsAndEmptyModels) {
  Rng rng(1);
  const std::vector<PlannedTensor> tensors = {
      {"none", f32_, {0, 4}}, {"t", f32_, {1}}, {"void", f32_, {0}}};
  const auto payloads = fill(rng, *write_safetensors(path("out"), tensors, {}), tensors);
  EXPECT_EQ(open_model(path("out"))->tensors().size(), 3U);
  write_safetensors(path("empty"), {}, {})->finish();
  EXPECT_EQ(open_model(path("empty"))->tensors().size(), 0U);
}

TEST_F(SafetensorsWriter, RefusesAFolderThatHoldsSomething) {
  std::filesystem::create_directory(path("out"));
  write_safetensors(path("out"), {}, {})->finish();
  EXPECT_THAT(error_of([&] { write_safetensors(path("out"), {}, {}); }, ErrorCode::kUsage),
              HasSubstr("exists already"));
}

TEST_F(SafetensorsWriter, LeavesNothingBehindWhenAbandoned) {
  {
    const auto writer = write_safetensors(path("out"), {{"t", f32_, {4}}}, {});
    writer->append(std::vector<std::byte>(8));
    EXPECT_EQ(entries(), 1U);
  }
  EXPECT_EQ(entries(), 0U);
}

TEST_F(SafetensorsWriter, RefusesTypesThatTheFormatLacks) {
  EXPECT_THAT(error_of([&] {
                write_safetensors(path("out"), {{"t", quant::find_codec("Q8_0"), {32}}}, {});
              }),
              HasSubstr("safetensors has no type Q8_0; use F32, F16 or BF16"));
}

TEST_F(SafetensorsWriter, EscapesNames) {
  Rng rng(1);
  const std::vector<PlannedTensor> tensors = {{"a\"b\\c\u00e9", f32_, {1}}, {"d", f32_, {80}}};
  const SafetensorsOptions options{.max_file_size = {100}, .sidecars = {}};
  const auto payloads = fill(rng, *write_safetensors(path("out"), tensors, options), tensors);
  expect_same(*open_model(path("out")), tensors, payloads);
}

}  // namespace
}  // namespace winnow::formats::model_writer_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Files made by the packages of the formats' publishers (testdata/formats/make_golden.py) are read
// with the values that went in, and written again to the same bytes.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/json.h"
#include "formats/model_file.h"
#include "formats/test_files.h"

namespace winnow::formats::golden_test {
namespace {

const std::filesystem::path kFolder = WINNOW_SOURCE_DIR "/testdata/formats";

std::string file_bytes(const std::filesystem::path& path) {
  return os::read_text_file(path, {1 << 20});
}

std::string payload(const ModelFile& model, const TensorInfo& tensor) {
  std::string bytes(tensor.size.value, '\0');
  model.read(tensor, 0, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

std::string hexadecimal(std::string_view bytes) {
  std::string digits;
  for (const char byte : bytes) digits += fmt::format("{:02x}", static_cast<std::uint8_t>(byte));
  return digits;
}

/// All tensors of the model are those of the golden description, to the bit.
void expect_tensors(const ModelFile& model, const Json& expected) {
  EXPECT_EQ(model.tensors().size(), expected.size());
  for (const Json& tensor : expected) {
    const auto name = tensor.at("name").get<std::string>();
    const TensorInfo* found = model.find(name);
    ASSERT_NE(found, nullptr) << name;
    EXPECT_EQ(found->type_name, tensor.at("type").get<std::string>()) << name;
    const auto shape = tensor.at("shape").get<std::vector<std::uint64_t>>();
    EXPECT_EQ(found->shape, tensor::Shape{std::span<const std::uint64_t>(shape)}) << name;
    EXPECT_EQ(hexadecimal(payload(model, *found)), tensor.at("payload").get<std::string>()) << name;
  }
}

void expect_array(const Metadata& metadata, const std::string& key, const Json& value) {
  if (value.at(0).is_string()) {
    EXPECT_EQ(metadata.strings(key), value.get<std::vector<std::string>>()) << key;
  } else if (value.at(0).is_boolean()) {
    const auto& array = std::get<Array>(*metadata.find(key));
    EXPECT_EQ(std::get<std::vector<bool>>(array), value.get<std::vector<bool>>()) << key;
  } else if (value.at(0).is_number_integer()) {
    EXPECT_EQ(metadata.integers(key), value.get<std::vector<std::int64_t>>()) << key;
  } else {
    EXPECT_EQ(metadata.numbers(key), value.get<std::vector<double>>()) << key;
  }
}

/// A scalar as the description has it: type name of the package and value.
void expect_scalar(const Value& value, const std::string& key, const std::string& type,
                   const Json& expected) {
  static const std::vector<std::string> kTypes = {"UINT8",  "INT8",    "UINT16", "INT16",  "UINT32",
                                                  "INT32",  "FLOAT32", "BOOL",   "STRING", "ARRAY",
                                                  "UINT64", "INT64",   "FLOAT64"};
  EXPECT_EQ(kTypes.at(value.index()), type) << key;
  std::visit(
      [&](const auto& held) {
        using T = std::decay_t<decltype(held)>;
        if constexpr (!std::is_same_v<T, Array>) {
          EXPECT_EQ(held, expected.get<T>()) << key;
        } else {
          ADD_FAILURE() << key << " is an array";
        }
      },
      value);
}

void expect_keys(const Metadata& metadata, const Json& expected) {
  EXPECT_EQ(metadata.entries().size(), expected.size());
  for (const Json& entry : expected) {
    const auto key = entry.at(0).get<std::string>();
    ASSERT_TRUE(metadata.contains(key)) << key;
    const auto type = entry.at(1).get<std::string>();
    if (type == "array") {
      expect_array(metadata, key, entry.at(2));
    } else {
      expect_scalar(*metadata.find(key), key, type, entry.at(2));
    }
  }
}

void expect_golden(const std::string& model_name, const std::string& description) {
  const Json expected = parse_json(file_bytes(kFolder / description), description);
  const auto model = open_model(kFolder / model_name);
  expect_keys(model->metadata(), expected.at("keys"));
  expect_tensors(*model, expected.at("tensors"));
}

std::vector<PlannedTensor> plan_of(const ModelFile& model) {
  std::vector<PlannedTensor> plan;
  for (const TensorInfo& tensor : model.tensors()) {
    plan.push_back({tensor.name, tensor.codec, tensor.shape});
  }
  return plan;
}

void copy_payloads(const ModelFile& model, ModelWriter& writer) {
  for (const TensorInfo& tensor : model.tensors()) {
    const std::string bytes = payload(model, tensor);
    writer.append(std::as_bytes(std::span(bytes)));
  }
  writer.finish();
}

TEST(Golden, GgufFileIsReadToTheBit) { expect_golden("plain.gguf", "plain.gguf.json"); }

TEST(Golden, SplitGgufFilesAreReadToTheBit) {
  expect_golden("split-00001-of-00003.gguf", "split.gguf.json");
}

TEST(Golden, SafetensorsFoldersAreReadToTheBit) {
  expect_golden("single", "single.json");
  expect_golden("single/model.safetensors", "single.json");
  expect_golden("sharded", "sharded.json");
}

TEST(Golden, SidecarsAreReadBesideTheWeights) {
  const auto model = open_model(kFolder / "sharded");
  EXPECT_EQ(model->sidecar("config.json"), "{\"model_type\": \"test\"}\n");
  EXPECT_EQ(model->sidecar("tokenizer.json"), "");
}

TEST(Golden, GgufFileIsWrittenAsItsPublisherWritesIt) {
  const testing::TemporaryFolder folder;
  const auto model = open_model(kFolder / "plain.gguf");
  const auto writer = write_gguf(folder.path() / "copy.gguf", model->metadata(), plan_of(*model));
  copy_payloads(*model, *writer);
  EXPECT_TRUE(file_bytes(folder.path() / "copy.gguf") == file_bytes(kFolder / "plain.gguf"));
}

TEST(Golden, SafetensorsFileIsWrittenAsItsPublisherWritesIt) {
  const testing::TemporaryFolder folder;
  const auto model = open_model(kFolder / "single");
  const auto writer = write_safetensors(folder.path() / "copy", plan_of(*model), {});
  copy_payloads(*model, *writer);
  EXPECT_TRUE(file_bytes(folder.path() / "copy/model.safetensors") ==
              file_bytes(kFolder / "single/model.safetensors"));
}

TEST(Golden, BundledModelIsListedWhole) {
  const auto model = open_model(WINNOW_SOURCE_DIR "/models/grain");
  std::uint64_t bytes = 0;
  for (const TensorInfo& tensor : model->tensors()) bytes += tensor.size.value;
  // 21.2 million parameters of two bytes.
  EXPECT_NEAR(static_cast<double>(bytes), 42.4e6, 0.1e6);
  EXPECT_NE(model->sidecar("config.json"), "");
}

}  // namespace
}  // namespace winnow::formats::golden_test

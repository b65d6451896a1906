// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// For tests only: the tiny models of testdata/models, and copies of them with something changed.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "model/checkpoint.h"
#include "os/file.h"

namespace winnow::model::testing {

/// A folder of testdata/models by its whole name, "qwen3_moe-plain".
inline std::filesystem::path tiny_folder(std::string_view name) {
  return std::filesystem::path(WINNOW_SOURCE_DIR) / "testdata/models" / name;
}

/// That of a variant of Qwen3-MoE, which tests take where the architecture does not matter.
inline std::filesystem::path tiny_model(std::string_view variant) {
  return tiny_folder(fmt::format("qwen3_moe-{}", variant));
}

/// Whole names of all tiny models of all architectures, sorted.
inline std::vector<std::string> tiny_models() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(tiny_folder(""))) {
    if (std::filesystem::exists(entry.path() / "config.json")) {
      names.push_back(entry.path().filename().string());
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

/// Elements of all tensors that a model of this spec has, those of all its experts among them.
inline std::uint64_t parameters_of(const ModelSpec& spec) {
  std::uint64_t parameters = 0;
  for (const RoleTraits& role : all_roles()) {
    for (std::uint32_t layer = 0; layer < (role.per_layer ? spec.num_hidden_layers : 1); ++layer) {
      const auto shape = expected_shape(spec, role.role, LayerId{layer});
      const std::uint32_t parts = role.per_expert ? spec.moe.num_experts : 1;
      if (shape) parameters += parts * shape->checked_elements().value();
    }
  }
  return parameters;
}

/// For tests with the name of a tiny model as their parameter.
inline std::string test_name(const ::testing::TestParamInfo<std::string>& model) {
  std::string name = model.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

/// A model of one safetensors file, in memory, whose parts a test may change.
class EditableModel {
 public:
  struct Tensor {
    std::string name;
    std::string dtype;
    std::vector<std::uint64_t> shape;
    std::string bytes;
  };

  explicit EditableModel(std::string_view tiny) {
    const auto folder = tiny_model(tiny);
    const auto text = [&](const char* name) {
      return os::read_text_file(folder / name, {1 << 24});
    };
    config = parse_json(text("config.json"), "config.json");
    tokenizer = text("tokenizer.json");
    tokenizer_config = text("tokenizer_config.json");
    const std::string file = text("model.safetensors");
    std::uint64_t header_size = 0;
    std::memcpy(&header_size, file.data(), sizeof header_size);
    const std::uint64_t data = sizeof header_size + header_size;
    const Json header = parse_json(file.substr(sizeof header_size, header_size), "header");
    for (const auto& [name, entry] : header.items()) {
      if (name == "__metadata__") continue;
      const auto begin = entry["data_offsets"][0].get<std::uint64_t>();
      const auto end = entry["data_offsets"][1].get<std::uint64_t>();
      tensors.push_back({name, entry["dtype"], entry["shape"].get<std::vector<std::uint64_t>>(),
                         file.substr(data + begin, end - begin)});
    }
  }

  Tensor& tensor(std::string_view name) {
    const auto found = std::find_if(tensors.begin(), tensors.end(),
                                    [&](const Tensor& t) { return t.name == name; });
    WINNOW_CHECK(found != tensors.end());
    return *found;
  }
  void remove(std::string_view name) {
    std::erase_if(tensors, [&](const Tensor& t) { return t.name == name; });
  }

  /// Writes it as a folder, which is made.
  void write(const std::filesystem::path& folder) const {
    std::filesystem::create_directories(folder);
    Json header = Json::object();
    std::string data;
    for (const Tensor& t : tensors) {
      header[t.name] = {{"dtype", t.dtype},
                        {"shape", t.shape},
                        {"data_offsets", {data.size(), data.size() + t.bytes.size()}}};
      data += t.bytes;
    }
    const std::string text = dump_json(header);
    const std::uint64_t size = text.size();
    const std::string prefix(reinterpret_cast<const char*>(&size), sizeof size);
    os::write_text_file(folder / "model.safetensors", prefix + text + data);
    os::write_text_file(folder / "config.json", dump_json(config));
    os::write_text_file(folder / "tokenizer.json", tokenizer);
    os::write_text_file(folder / "tokenizer_config.json", tokenizer_config);
  }

  Json config;
  std::string tokenizer;
  std::string tokenizer_config;
  std::vector<Tensor> tensors;
};

/// Code and message of the Error that `body` throws; fails the test when it throws none.
template <typename Body>
Error error_of(Body body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  return {ErrorCode::kInternal, "nothing was thrown"};
}

}  // namespace winnow::model::testing

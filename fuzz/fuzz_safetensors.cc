// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Any bytes as a safetensors file, or as the index of one: they are refused with an Error, or every
// tensor can be read.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/error.h"
#include "formats/safetensors.h"
#include "formats/test_files.h"

namespace {

using namespace winnow;

std::unique_ptr<formats::ModelFile> open(const std::string& bytes) {
  // An index begins with '{'; a file could too, but then its header would be cut off.
  if (!bytes.starts_with('{')) {
    return formats::read_safetensors(formats::testing::memory_file("m.safetensors", bytes));
  }
  // Every shard that an index may name holds one tensor, 'a' or 'b' by its file name.
  return formats::read_safetensors_index("d/index.json", bytes, [](const auto& path) {
    const char* name = path.filename() == "s" ? "a" : "b";
    const std::string header =
        fmt::format(R"({{"{}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}})", name);
    if (path.parent_path() != "d") __builtin_trap();  // it left the folder
    return formats::testing::memory_file(path.string(),
                                         formats::testing::safetensors_file(header, 1));
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto model = open(std::string(reinterpret_cast<const char*>(data), size));
    std::array<std::byte, 4096> payload;
    for (const formats::TensorInfo& tensor : model->tensors()) {
      const auto length = std::min<std::uint64_t>(payload.size(), tensor.size.value);
      model->read(tensor, 0, std::span(payload).first(length));
      model->read(tensor, tensor.size.value - length, std::span(payload).first(length));
      if (model->find(tensor.name) != &tensor) __builtin_trap();
    }
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kInternal || error.message().empty()) __builtin_trap();
  }
  return 0;
}

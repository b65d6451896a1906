// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Any bytes as a GGUF file: they are refused with an Error, or every tensor can be read.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/error.h"
#include "formats/gguf.h"
#include "formats/test_files.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace winnow;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  // The file is its own second split, so that the code for splits is reached as well.
  const auto open_split = [&](const std::filesystem::path& path) {
    return formats::testing::memory_file(path.string(), bytes);
  };
  try {
    const auto model = formats::read_gguf(
        formats::testing::memory_file("m-00001-of-00002.gguf", bytes), open_split);
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

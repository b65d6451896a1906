// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Any bytes as an importance matrix: they are refused with an Error, or every entry can be found;
// its values are numbers or refused.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/error.h"
#include "formats/imatrix.h"
#include "formats/test_files.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace winnow;
  try {
    const auto file = formats::ImatrixFile::read(
        formats::testing::memory_file("m", std::string(reinterpret_cast<const char*>(data), size)));
    for (const formats::ImatrixEntry& entry : file.entries()) {
      if (file.find(entry.name) != &entry) __builtin_trap();
      const auto values = file.values(entry);
      if (values.mean_squares.size() != entry.values) __builtin_trap();
    }
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kInternal || error.message().empty()) __builtin_trap();
  }
  return 0;
}

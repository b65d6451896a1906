// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A safetensors file as a container of the program's own arrays with texts beside them: statistics,
// traces of routes. Its directory is read by parse_safetensors_header.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "os/file.h"

namespace winnow::formats {

/// An array that will follow the header. Payloads have no padding between them: in the order of
/// their elements' sizes, the largest first, every element is aligned.
struct PlannedArray {
  std::string name;
  std::string type;  ///< as safetensors has it: "U64"
  std::vector<std::uint64_t> shape;
  std::uint64_t size = 0;  ///< bytes
};

/// What such a file begins with; payloads follow in the order of `arrays`. texts: (key, text).
std::string array_file_header(std::span<const std::pair<std::string, std::string>> texts,
                              std::span<const PlannedArray> arrays);

/// The texts of a file that parse_safetensors_header has accepted. Throws as reading does.
std::map<std::string, std::string> array_file_texts(const os::RandomAccessFile& file);

}  // namespace winnow::formats

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "model/fingerprint.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <span>
#include <string_view>

namespace winnow::model {
namespace {

constexpr std::uint64_t kSampleBytes = 256;

class Fnv1a {
 public:
  void add(std::span<const std::byte> bytes) {
    for (const std::byte b : bytes) {
      hash_ = (hash_ ^ static_cast<std::uint64_t>(b)) * 0x100000001b3ULL;
    }
  }
  /// With its end marked, so that "ab" + "c" differs from "a" + "bc".
  void add(std::string_view text) {
    add(std::as_bytes(std::span(text)));
    add(std::as_bytes(std::span("", 1)));
  }
  std::uint64_t value() const { return hash_; }

 private:
  std::uint64_t hash_ = 0xcbf29ce484222325ULL;
};

}  // namespace

std::uint64_t fingerprint(const formats::ModelFile& file) {
  Fnv1a hash;
  std::array<std::byte, kSampleBytes> sample;
  for (const formats::TensorInfo& tensor : file.tensors()) {
    hash.add(tensor.name);
    hash.add(tensor.type_name);
    hash.add(tensor.shape.to_string());
    const auto part = std::span(sample).first(std::min(kSampleBytes, tensor.size.value));
    file.read(tensor, 0, part);
    hash.add(part);
  }
  for (const char* name : {"config.json", "tokenizer.json"}) hash.add(file.sidecar(name));
  return hash.value();
}

std::string describe_source(const formats::ModelFile& file) {
  return fmt::format("{}:{:016x}", path_label(file.name()), fingerprint(file));
}

std::string path_label(const std::string& path) {
  std::filesystem::path full = std::filesystem::absolute(path).lexically_normal();
  if (!full.has_filename()) full = full.parent_path();
  return full.filename().string();
}

}  // namespace winnow::model

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// For tests and fuzzers only: files in memory, folders that vanish, and model files built byte by
// byte, so that a test can make any field wrong.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "os/file.h"

namespace winnow::formats::testing {

/// A file whose bytes are a string.
class MemoryFile final : public os::RandomAccessFile {
 public:
  MemoryFile(std::string name, std::string bytes)
      : name_(std::move(name)), bytes_(std::move(bytes)) {}
  const std::string& name() const override { return name_; }
  Bytes size() const override { return {bytes_.size()}; }
  void read_at(std::uint64_t offset, std::span<std::byte> out) const override {
    if (offset > bytes_.size() || out.size() > bytes_.size() - offset) {
      fail_data("{}: read of {} bytes at offset {} past the end", name_, out.size(), offset);
    }
    if (!out.empty()) std::memcpy(out.data(), bytes_.data() + offset, out.size());
  }

 private:
  std::string name_;
  std::string bytes_;
};

inline std::unique_ptr<os::RandomAccessFile> memory_file(std::string name, std::string bytes) {
  return std::make_unique<MemoryFile>(std::move(name), std::move(bytes));
}

/// A new folder that is removed with all its content.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::random_device random;
    do {
      path_ = std::filesystem::temp_directory_path() / fmt::format("winnow-test-{:08x}", random());
    } while (!std::filesystem::create_directory(path_));
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// The bytes of a number as both formats store it.
template <typename T>
std::string le(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

/// A GGUF string: its length and its bytes.
inline std::string gguf_string(std::string_view text) {
  return le(std::uint64_t{text.size()}) + std::string(text);
}

/// Builds a GGUF file from fields that need not make sense.
class GgufBuilder {
 public:
  std::uint32_t version = 3;
  std::uint64_t claimed_tensors = 0;  ///< counted by `tensor`; may be overwritten
  std::uint64_t claimed_keys = 0;     ///< counted by `key`; may be overwritten
  std::uint64_t alignment = 32;       ///< of the data section that `build` appends

  /// `payload`: the bytes of the value, after its type number.
  GgufBuilder& key(std::string_view name, std::uint32_t type, std::string_view payload) {
    ++claimed_keys;
    keys_ += gguf_string(name) + le(type) + std::string(payload);
    return *this;
  }
  /// `dims`: innermost first, as in the file.
  GgufBuilder& tensor(std::string_view name, const std::vector<std::uint64_t>& dims,
                      std::uint32_t type, std::uint64_t offset) {
    ++claimed_tensors;
    tensors_ += gguf_string(name) + le(static_cast<std::uint32_t>(dims.size()));
    for (const std::uint64_t dim : dims) tensors_ += le(dim);
    tensors_ += le(type) + le(offset);
    return *this;
  }
  std::string build(std::uint64_t data_bytes = 0) const {
    std::string file =
        "GGUF" + le(version) + le(claimed_tensors) + le(claimed_keys) + keys_ + tensors_;
    if (data_bytes == 0) return file;
    while (file.size() % alignment != 0) file += '\0';
    for (std::uint64_t i = 0; i < data_bytes; ++i) file += static_cast<char>(i * 7 + 3);
    return file;
  }

 private:
  std::string keys_;
  std::string tensors_;
};

/// A safetensors file with this header text and so many payload bytes.
inline std::string safetensors_file(std::string_view header, std::uint64_t data_bytes) {
  std::string file = le(std::uint64_t{header.size()}) + std::string(header);
  for (std::uint64_t i = 0; i < data_bytes; ++i) file += static_cast<char>(i * 5 + 1);
  return file;
}

}  // namespace winnow::formats::testing

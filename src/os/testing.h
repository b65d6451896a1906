// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// For tests of mapped files: files whose bytes say where they are, and what /proc says of memory.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <sstream>
#include <string>

#include "os/file.h"

namespace winnow::os {

/// Byte i of a numbered file. The period is no power of two, so that no shift of pages fits.
inline std::byte numbered_byte(std::size_t i) { return static_cast<std::byte>(i % 251 + 1); }

/// Index of the first byte that is not the numbered file's; the size when all are.
inline std::size_t first_wrong(std::span<const std::byte> bytes) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] != numbered_byte(i)) return i;
  }
  return bytes.size();
}

/// A folder for the files of one test.
class NumberedFiles : public ::testing::Test {
 protected:
  NumberedFiles() {
    std::string pattern = (std::filesystem::temp_directory_path() / "winnow-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~NumberedFiles() override { std::filesystem::remove_all(folder_); }

  std::string path(const std::string& name) const { return folder_ / name; }
  std::unique_ptr<RandomAccessFile> write_numbered(const std::string& name, std::size_t size) {
    std::string text(size, '\0');
    for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(numbered_byte(i));
    std::ofstream(path(name), std::ios::binary) << text;
    return open_file(path(name));
  }

 private:
  std::filesystem::path folder_;
};

/// Memory of this process that is resident now (VmRSS), in bytes. Allocates nothing: a sanitizer
/// keeps freed memory, and a loop that looks often would see its own.
inline std::size_t resident_bytes() {
  char text[128] = {};
  const int file = ::open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  const ssize_t size = ::read(file, text, sizeof text - 1);
  ::close(file);
  EXPECT_GT(size, 0);
  std::size_t total = 0;
  std::size_t resident = 0;
  EXPECT_EQ(std::sscanf(text, "%zu %zu", &total, &resident), 2);
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

/// Bytes on anonymous huge pages of the mappings that overlap `range`.
inline std::size_t huge_page_bytes(std::span<const std::byte> range) {
  const auto begin = reinterpret_cast<std::uintptr_t>(range.data());
  std::ifstream smaps("/proc/self/smaps");
  std::string line;
  bool inside = false;
  std::size_t kib = 0;
  while (std::getline(smaps, line)) {
    unsigned long from = 0;
    unsigned long to = 0;
    std::size_t here = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &from, &to) == 2) {
      inside = to > begin && from < begin + range.size();
    } else if (inside && std::sscanf(line.c_str(), "AnonHugePages: %zu", &here) == 1) {
      kib += here;
    }
  }
  return kib * 1024;
}

}  // namespace winnow::os

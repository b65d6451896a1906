// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Reads a binary header from front to back through a small buffer, so that a header is parsed
// without the file being in memory, and no read or allocation goes beyond the file's end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/error.h"
#include "os/file.h"

namespace winnow::formats {

/// A position in a file of little-endian values. Every member that reads throws Error{kBadData}
/// with file, subject and offset when the file ends before, and as RandomAccessFile::read_at.
class Cursor {
 public:
  /// Borrows `file`.
  explicit Cursor(const os::RandomAccessFile& file) : file_(file) {}

  std::uint64_t position() const { return position_; }
  /// Bytes from here to the end of the file.
  std::uint64_t remaining() const { return file_.size().value - position_; }
  /// What is being read, for messages: "key 'general.name'".
  void set_subject(std::string subject) { subject_ = std::move(subject); }

  void read(std::span<std::byte> out);
  /// Goes on `bytes` further.
  void skip(std::uint64_t bytes);
  template <typename T>
  requires std::is_arithmetic_v<T> T read() {
    T value;
    read(std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  /// A count (u64) of elements that take at least `element_bytes` (not 0) each in the file. Refused
  /// when the rest of the file cannot hold that many, so the caller may allocate for it.
  std::uint64_t read_count(std::string_view of_what, std::uint64_t element_bytes);
  /// A length (u64) and as many bytes.
  std::string read_string();

  /// Throws Error{kBadData}: "FILE: SUBJECT: MESSAGE (at offset N)", N being the position.
  template <typename... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    fail_text(fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  void require(std::uint64_t bytes) const;
  [[noreturn]] void fail_text(std::string_view message) const;

  const os::RandomAccessFile& file_;
  std::string subject_ = "header";
  std::uint64_t position_ = 0;
  std::vector<std::byte> buffer_;
  std::uint64_t buffer_begin_ = 0;  // file offset of buffer_[0]
};

}  // namespace winnow::formats

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What asynchronous reads take their bytes from: a file past the page cache, or through it where
// the file system does not allow that. Tests replace it to inject failures.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "os/file.h"

namespace winnow::os {

/// Offsets, sizes and addresses of asynchronous reads are multiples of this, which file systems ask
/// for that read past the page cache. One that wants more is read through the page cache.
constexpr std::size_t kReadAlignment = 4096;

/// Thread-safe.
class ReadSource {
 public:
  virtual ~ReadSource() = default;
  /// Path for messages.
  virtual const std::string& name() const = 0;
  /// One attempt: the number of bytes read from `offset` on, which may be fewer than asked for, 0
  /// at the end of the file, or a negative errno. May throw Error as RandomAccessFile::read_at
  /// does.
  virtual std::int64_t read(std::uint64_t offset, std::span<std::byte> out) = 0;
  /// For interfaces of the system that read by themselves, with the results of `read`; -1: none.
  virtual int descriptor() const { return -1; }
  /// After -EINVAL: reads through the page cache from now on.
  virtual void fall_back() {}
  /// These bytes have been read, and the page cache need not keep them.
  virtual void forget(std::uint64_t /*offset*/, std::size_t /*size*/) {}
  /// Throws Error{kBadData} when the file is not what it was when the source was made.
  virtual void require_unchanged() const {}
};

enum class PageCache : std::uint8_t {
  kAvoided,  ///< O_DIRECT where the file system has it
  kUsed,     ///< and emptied again after each read
};

/// The same file, even if its path leads to another one by now. Files without a descriptor are read
/// by `read_at`, and must outlive the source then. Throws Error{kBadData} when the file's size is
/// no longer what it was when it was opened, Error{kSystem} when the system refuses.
std::unique_ptr<ReadSource> make_read_source(const RandomAccessFile& file, PageCache page_cache);

}  // namespace winnow::os

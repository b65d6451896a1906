// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Files: owning descriptors, positioned reads behind an interface that tests can make fail, and
// writers whose result appears under its final name only when it is whole and on the disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/units.h"

namespace winnow::os {

/// Owns a file descriptor; closes it. Moves only.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept;
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd();

  int value() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() noexcept {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }

 private:
  int fd_ = -1;
};

/// Positioned reads of an unchanging file. Thread-safe. Tests replace it to inject failures.
class RandomAccessFile {
 public:
  virtual ~RandomAccessFile() = default;
  /// Path for messages.
  virtual const std::string& name() const = 0;
  /// Size when it was opened.
  virtual Bytes size() const = 0;
  /// Fills `out` from `offset`. Throws Error{kBadData} when the file ends before (it was truncated
  /// since it was opened), Error{kSystem} on an I/O error; both name file and offset.
  virtual void read_at(std::uint64_t offset, std::span<std::byte> out) const = 0;
  /// What MappedFile maps; -1 when there is nothing to map. Stays the file's.
  virtual int descriptor() const { return -1; }
};

/// Opens a regular file for reading. Throws Error{kBadData} when it does not exist or is a
/// directory, Error{kSystem} for anything else.
std::unique_ptr<RandomAccessFile> open_file(const std::filesystem::path& path);

/// The whole text of a file of at most `limit` bytes. Throws as `open_file`, and Error{kBadData}
/// when the file is larger.
std::string read_text_file(const std::filesystem::path& path, Bytes limit);

/// Writes a file sequentially under `<path>.partial-<pid>`; `commit` syncs it and renames it to
/// `path`, replacing what was there. Destroyed without `commit`, it removes the partial file, so
/// that nothing half-written is ever found under the final name. A link stays, and what it leads
/// to is replaced. Throws Error{kUsage} when `path` is a device, a pipe or a socket.
/// All members throw Error{kSystem} that names the file and the reason (disk full ...).
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& path);
  AtomicFile(AtomicFile&&) noexcept = default;
  AtomicFile& operator=(AtomicFile&&) = delete;
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  const std::filesystem::path& path() const { return path_; }
  /// Bytes appended so far.
  Bytes position() const { return {position_}; }
  void append(std::span<const std::byte> bytes);
  void append(std::string_view text);
  /// Writes over bytes that have been appended.
  void overwrite(std::uint64_t offset, std::string_view text);
  /// Synced, unless the file is not to outlive the process anyway.
  enum class Durability { kSynced, kScratch };
  void commit(Durability durability = Durability::kSynced);

 private:
  void flush();

  std::filesystem::path path_;
  std::filesystem::path partial_;
  Fd fd_;
  std::string buffer_;  // small appends are gathered
  std::uint64_t position_ = 0;
};

/// A folder that is filled under `<path>.partial-<pid>` and appears as `path` by `commit`.
/// Destroyed without `commit`, it removes the partial folder. Neither copies nor moves.
class AtomicFolder {
 public:
  /// Throws Error{kUsage} when `path` exists and is anything but an empty folder, Error{kSystem}
  /// when the partial folder cannot be made.
  explicit AtomicFolder(const std::filesystem::path& path);
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;
  ~AtomicFolder();

  /// Where the files are written until `commit`.
  const std::filesystem::path& partial() const { return partial_; }
  /// Syncs the folder, renames it, syncs the parent. The files in it have been synced by their
  /// writers. Throws Error{kSystem} that names the folder and the reason.
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path partial_;
};

/// Writes `text` to `path` through an AtomicFile, or straight into a pipe or a character device
/// (/dev/null, /dev/stdout).
void write_text_file(const std::filesystem::path& path, std::string_view text);

}  // namespace winnow::os

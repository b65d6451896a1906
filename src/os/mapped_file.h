// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A file in the address space: its bytes can be used at once, and can later be moved, piece by
// piece and under the same addresses, to memory on large pages.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "os/fault_guard.h"
#include "os/file.h"

namespace winnow::os {

/// Maps a whole file for reading. A file that is truncated meanwhile never ends the process: what
/// is gone reads as zeros, and `require_unchanged` throws (see FaultGuard for what that does to
/// SIGBUS). Reading is thread-safe, also while a piece is moved. Neither copies nor moves.
class MappedFile {
 public:
  /// Bytes of a piece; the last one may be shorter. Large enough that a file of 1 TB needs fewer
  /// mappings than a process may have, small enough to be no burden while it exists twice.
  static constexpr std::size_t kPieceBytes = std::size_t{32} << 20;

  /// The file may be closed afterwards. Null when it has no descriptor or is empty. Throws
  /// Error{kBadData} when its size is no longer what it was when it was opened, Error{kSystem} when
  /// it cannot be mapped.
  static std::unique_ptr<MappedFile> map(const RandomAccessFile& file);
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const std::string& name() const { return name_; }
  /// The file's bytes, at an address that is a multiple of 2 MiB.
  std::span<const std::byte> bytes() const { return {data_, size_}; }

  /// Throws Error{kBadData} when what has been read from `bytes` so far may not be what the file
  /// held when it was mapped: it was truncated, rewritten, or a page of it could not be read.
  /// Cheap: one fstat, and none once all pieces have been moved.
  void require_unchanged() const;

  std::size_t pieces() const { return (size_ + kPieceBytes - 1) / kPieceBytes; }
  /// Copies a piece to anonymous memory, on 2 MiB pages where the system grants them, and puts that
  /// in the place of the file's pages in one step, so that pointers into `bytes` stay valid and a
  /// concurrent reader sees the same bytes throughout. At most one piece exists twice at a time.
  /// Each piece once, in order, by one thread. False when it was not moved: `stop` returned true,
  /// the system has no memory, or the file has changed; the file's pages then stay.
  bool move_piece(std::size_t piece, const std::function<bool()>& stop);

 private:
  MappedFile(const RandomAccessFile& file, std::uint64_t size);
  bool unchanged_on_disk() const;
  bool read_piece(std::uint64_t offset, std::span<std::byte> out,
                  const std::function<bool()>& stop) const;

  std::string name_;
  Fd fd_;
  std::size_t size_ = 0;
  std::int64_t modified_seconds_ = 0;
  std::int64_t modified_nanoseconds_ = 0;
  void* reserved_ = nullptr;
  std::size_t reserved_bytes_ = 0;
  std::byte* data_ = nullptr;
  std::optional<FaultGuard> guard_;
  std::atomic<std::size_t> moved_{0};  // pieces
  std::atomic<bool> changed_{false};   // found by the thread that moves
};

}  // namespace winnow::os

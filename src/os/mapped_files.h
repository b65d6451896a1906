// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The files of a model in the address space, moved to memory on large pages in the background.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "base/units.h"
#include "os/file.h"
#include "os/mapped_file.h"

namespace winnow::os {

/// Maps files once and hands out their bytes, which stay at their addresses while it lives.
/// Reading and `find` are thread-safe. Neither copies nor moves.
class MappedFiles {
 public:
  enum class Move {
    kStay,  ///< the page cache holds the bytes; the system may drop and read them again
    /// A thread of low priority moves the bytes to anonymous memory, see MappedFile::move_piece:
    /// 2 MiB pages are worth 5-15 % of the read rate. It does not begin, or stops, where that would
    /// take memory that the system cannot spare; failures leave the rest of the files mapped.
    /// Begins with `start_moving`.
    kInBackground,
  };

  /// Files without a descriptor, and empty ones, are left out. Throws as MappedFile::map.
  MappedFiles(std::span<const std::unique_ptr<RandomAccessFile>> files, Move move);
  MappedFiles(const MappedFiles&) = delete;
  MappedFiles& operator=(const MappedFiles&) = delete;
  /// Stops the thread within the time of a read of some MiB.
  ~MappedFiles();

  /// Bytes [offset, offset + size) of a file given to the constructor (which is only compared by
  /// address and may be gone); null when it is not mapped. The range lies inside the file.
  const std::byte* find(const RandomAccessFile& file, std::uint64_t offset,
                        std::uint64_t size) const;
  /// As MappedFile, for each.
  void require_unchanged() const;
  /// Starts the background thread if there is to be one; later calls do nothing. Apart from the
  /// constructor, so that the first use of the files has the processors for itself. One thread
  /// calls it.
  void start_moving();
  /// All bytes mapped.
  Bytes size() const { return size_; }
  /// Bytes moved so far; = size() once all are.
  Bytes moved() const { return {moved_.load(std::memory_order_relaxed)}; }
  /// Returns when the background thread has ended (all is moved, or it gave up) or never started.
  void wait_until_settled() const;

 private:
  void move_all();

  std::vector<std::pair<const RandomAccessFile*, std::unique_ptr<MappedFile>>> files_;
  Bytes size_;
  bool to_move_;  // and not begun
  std::atomic<std::uint64_t> moved_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<bool> settled_{true};
  std::thread mover_;
};

}  // namespace winnow::os

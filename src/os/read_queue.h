// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What all asynchronous readers share: which read comes next, what becomes of a result of the
// system, and who is told.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "os/async_reader.h"

namespace winnow::os {

/// One read on its way.
class ReadJob {
 public:
  ReadJob(const AsyncRead& read, ReadSource& source) : read_(read), source_(&source) {}

  const AsyncRead& read() const { return read_; }
  ReadSource& source() const { return *source_; }
  /// What to ask the system for next, at most 1 GiB.
  std::uint64_t offset() const { return read_.offset + done_; }
  std::span<std::byte> rest() const;

  /// Takes what the system said to that (see ReadSource::read). True when the read is done, false
  /// when there is something more to ask for. Throws Error as AsyncReader says.
  bool advance(std::int64_t result);
  /// One attempt with ReadSource::read, and `advance`.
  bool attempt() { return advance(source_->read(offset(), rest())); }

 private:
  bool advance_after_error(int reason);
  bool advance_by(std::size_t bytes);

  AsyncRead read_;
  ReadSource* source_;
  std::size_t done_ = 0;  // a multiple of kReadAlignment
  bool fell_back_ = false;
  int io_errors_ = 0;
  int fruitless_ = 0;
};

/// Thread-safe.
class ReadQueue {
 public:
  ReadQueue(std::vector<std::unique_ptr<ReadSource>> sources, Bytes in_flight)
      : sources_(std::move(sources)), limit_(in_flight.value) {}

  // For the caller of the reader, as AsyncReader says.
  void submit(std::span<const AsyncRead> reads, ReadPriority priority);
  void promote(std::uint64_t tag);
  bool cancel(std::uint64_t tag, std::size_t count);
  std::optional<ReadResult> poll();
  ReadResult wait();

  // For those who read.
  /// The next read that may begin; nothing when there is none.
  std::optional<ReadJob> try_take();
  /// The same, waiting for one; nothing after `close`.
  std::optional<ReadJob> take();
  void finish(const ReadJob& job, std::exception_ptr error);
  /// No further read begins.
  void close();
  bool closed() const;

 private:
  std::optional<ReadJob> take_locked();
  std::optional<ReadResult> poll_locked();

  std::vector<std::unique_ptr<ReadSource>> sources_;
  const std::uint64_t limit_;
  mutable std::mutex mutex_;
  std::condition_variable work_, results_;
  std::deque<AsyncRead> demand_, speculation_;
  std::deque<ReadResult> done_;
  std::uint64_t in_flight_ = 0;  // bytes
  std::size_t unfinished_ = 0;   // reads submitted and not in `done_`
  bool closed_ = false;
};

/// Null where the system does not allow io_uring.
std::unique_ptr<AsyncReader> make_uring_reader(
    std::vector<std::unique_ptr<ReadSource>>& sources,  ///< taken unless the result is null
    const ReaderOptions& options);

}  // namespace winnow::os

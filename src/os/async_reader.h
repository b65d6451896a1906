// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Reads that go on while the caller computes: many at once, those needed now before those that are
// guesses, with a bound on what is on its way. By io_uring, or by threads where that is forbidden.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/units.h"
#include "os/read_source.h"

namespace winnow::os {

/// A stretch of a file into memory of the caller, which stays until the result is there.
struct AsyncRead {
  std::size_t source = 0;    ///< index of one of the reader's sources
  std::uint64_t offset = 0;  ///< multiple of kReadAlignment
  std::span<std::byte> out;  ///< address and size likewise; may reach beyond the file's end
  std::size_t least = 0;     ///< the file must have so many from `offset` on; in [1, out.size()]
  std::uint64_t tag = 0;     ///< comes back with the result
};

struct ReadResult {
  std::uint64_t tag = 0;
  std::exception_ptr error;  ///< null: `least` bytes or more are there
};

/// Guesses wait until no read that is needed now does.
enum class ReadPriority : std::uint8_t { kDemand, kSpeculation };

/// One thread calls it at a time. Destroying it drops reads that have not begun and waits for those
/// that have.
///
/// Short reads and interruptions are continued, an I/O error is tried twice more. What remains is
/// the error of that read alone, with file and offset: Error{kSystem} from the system,
/// Error{kBadData} for a file that ends too early or was written to since its source was made.
class AsyncReader {
 public:
  virtual ~AsyncReader() = default;
  /// Begins at once, as far as the bound allows.
  virtual void submit(std::span<const AsyncRead> reads, ReadPriority priority) = 0;
  /// The reads with this tag are needed now, if they have not begun.
  virtual void promote(std::uint64_t tag) = 0;
  /// Drops the guesses with this tag, `count` reads, if none of them has begun: nobody is told of
  /// them. False: they go on.
  virtual bool cancel(std::uint64_t tag, std::size_t count) = 0;
  /// A read that has ended, in the order in which they did; each is told once.
  virtual std::optional<ReadResult> poll() = 0;
  /// The same, waiting for one. Something must be on its way.
  virtual ReadResult wait() = 0;
  /// How it reads: "io_uring" or "threads".
  virtual std::string_view method() const = 0;
  /// Bytes of the wished for memory that are pinned.
  virtual Bytes registered() const { return Bytes{0}; }
};

enum class ReadMethod : std::uint8_t {
  kAuto,     ///< io_uring where the system allows it, else threads
  kUring,    ///< Throws Error{kSystem} where the system does not
  kThreads,  ///< of its own, which wait in pread
};

struct ReaderOptions {
  ReadMethod method = ReadMethod::kAuto;
  unsigned threads = 4;  ///< of kThreads; 1 or more
  /// Bytes on their way at most (a single read may have more). A disk that is limited in bandwidth
  /// turns more into latency: 16 MiB are 20 ms at 0.9 GB/s.
  Bytes in_flight{std::uint64_t{16} << 20};
  /// Memory that reads go into, all of which is pinned while the reader lives so that no read has
  /// to pin its own; outlives it. A wish: io_uring does so where the limit of locked memory allows,
  /// and reads into other memory work as well.
  std::span<std::byte> registered = {};
  /// Pinned in pieces of so many bytes, at most 1 GiB; a read across two pins its own memory.
  Bytes registered_piece{std::uint64_t{1} << 30};
};

std::unique_ptr<AsyncReader> make_async_reader(std::vector<std::unique_ptr<ReadSource>> sources,
                                               const ReaderOptions& options);

}  // namespace winnow::os

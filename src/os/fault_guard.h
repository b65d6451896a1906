// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Touching a mapped file beyond its end raises SIGBUS. A guarded range reads as zeros there instead
// and remembers that it did, so that a truncated file ends in an error message.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace winnow::os {

/// Guards one mapping while it lives. Neither copies nor moves.
///
/// Changes process-wide state: the first guard installs a handler of SIGBUS, the end of the last
/// one puts the former handler back (unless somebody has put another in its place meanwhile, which
/// may call ours: then ours stays). A SIGBUS that is not a bad address inside a guarded range goes
/// to the former handler or, without one, ends the process as if there were no guard. The handler
/// takes no lock and allocates nothing.
class FaultGuard {
 public:
  /// [begin, begin + bytes): a mapping of whole pages that the caller unmaps after the guard's end.
  /// Throws Error{kSystem} when the handler cannot be installed.
  FaultGuard(const std::byte* begin, std::size_t bytes);
  FaultGuard(const FaultGuard&) = delete;
  FaultGuard& operator=(const FaultGuard&) = delete;
  ~FaultGuard();

  /// True once a page of the range could not be read; from that page on it holds zeros.
  bool faulted() const noexcept { return range_->faulted.load(std::memory_order_acquire); }

  /// An entry of the list that the handler walks. Entries are reused, never freed: the handler may
  /// be looking at one at any time.
  struct Range {
    std::atomic<std::uintptr_t> begin{0};
    std::atomic<std::uintptr_t> end{0};  ///< 0 while the entry is free
    std::atomic<bool> faulted{false};
    bool taken = false;
    Range* next = nullptr;  ///< set before the entry is published
  };

 private:
  Range* range_;
};

}  // namespace winnow::os

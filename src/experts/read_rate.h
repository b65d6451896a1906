// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How fast reads are, from those that are made anyway.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace winnow::experts {

/// Bytes per second from the first read's beginning until none is on its way. One thread uses it.
class ReadRate {
 public:
  using Clock = std::chrono::steady_clock;

  /// `first`: nothing else is on its way.
  void begin(std::uint64_t bytes, bool first, Clock::time_point now = Clock::now()) {
    if (first) {
      since_ = now;
      bytes_ = 0;
    }
    bytes_ += bytes;
  }
  /// So many of the bytes are not read after all.
  void take_back(std::uint64_t bytes) { bytes_ -= std::min(bytes, bytes_); }
  /// The last of them is there. `waited`: it is known that it was not there before; else the time
  /// says only that reads are no slower.
  void end(bool waited, Clock::time_point now = Clock::now()) {
    const double seconds = std::chrono::duration<double>(now - since_).count();
    if (seconds <= 0) return;
    const double rate = static_cast<double>(bytes_) / seconds;
    if (rate_ == 0 || !waited) {
      rate_ = std::max(rate_, rate);
    } else {
      rate_ += (rate - rate_) / kMemory;
    }
  }
  /// 0: unknown.
  double bytes_per_second() const { return rate_; }

 private:
  static constexpr double kMemory = 16;
  Clock::time_point since_;
  std::uint64_t bytes_ = 0;
  double rate_ = 0;
};

}  // namespace winnow::experts

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Sleeping until a condition on atomics holds, where waking costs nothing while nobody sleeps.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>

namespace winnow::os {

/// Thread-safe. Both sides must reach the condition's atomics with sequential consistency: then
/// either the waker sees the sleeper, or the sleeper sees what the waker has written.
class SleepGate {
 public:
  /// Returns once `ready()` is true.
  template <typename Ready>
  void sleep_until(Ready ready) {
    std::unique_lock lock(mutex_);
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    condition_.wait(lock, ready);
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
  }

  /// Called after the condition has changed.
  void wake() {
    if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
    // A sleeper that has looked at the condition holds the mutex until it is really asleep.
    { const std::lock_guard lock(mutex_); }
    condition_.notify_all();
  }

 private:
  std::atomic<int> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable condition_;
};

}  // namespace winnow::os

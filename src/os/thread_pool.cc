// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Workers spin for a while before they sleep: phases of one token's forward pass are microseconds
// apart, and waking a sleeping thread costs tens of microseconds.
#include "os/thread_pool.h"

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"

namespace winnow::os {
namespace {

// About 50 us on current cores: longer than the gap between two phases, far shorter than a time
// slice, so that an idle pool soon leaves the machine alone.
constexpr int kSpins = 2000;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

/// A loop is over when its items are done, not when every worker has looked in: on a busy machine a
/// worker may not run for milliseconds, and the others then do its share without it. So a worker
/// may come late, when the loop it was called for is over or another one is running; the ticket,
/// which holds the loop's number beside the next item, keeps it from taking what it does not know.
class ThreadPool::State {
 public:
  explicit State(unsigned threads) {
    // No destructor runs for an object that was never complete: stop what has been started.
    try {
      for (unsigned worker = 1; worker < threads; ++worker) {
        workers_.emplace_back([this, worker] { work(worker); });
      }
    } catch (const std::exception& error) {
      const std::size_t started = workers_.size() + 1;
      stop();
      fail(ErrorCode::kSystem, "only {} of {} threads could be started ({}); ask for fewer",
           started, threads, error.what());
    }
  }

  ~State() { stop(); }

  unsigned size() const { return static_cast<unsigned>(workers_.size()) + 1; }

  void run(std::size_t items, const std::function<void(std::size_t, unsigned)>& body) {
    if (workers_.empty() || items <= 1) {
      for (std::size_t item = 0; item < items; ++item) body(item, 0);
      return;
    }
    WINNOW_CHECK(items < kClosed);
    const std::uint64_t loop = loops_.load(std::memory_order_relaxed) + 1;
    // Closed while its parts are exchanged: a late worker's ticket then no longer matches.
    ticket_.store(make_ticket(loop, kClosed), std::memory_order_relaxed);
    body_ = &body;
    // Release, and acquire in take_items: who sees the new count also sees the closed ticket, and
    // cannot take an item of the loop before.
    items_.store(static_cast<std::uint32_t>(items), std::memory_order_release);
    done_.store(0, std::memory_order_relaxed);
    failed_.store(false, std::memory_order_relaxed);
    ticket_.store(make_ticket(loop, 0), std::memory_order_release);
    {
      // The lock orders the new number against a worker that is about to sleep.
      const std::lock_guard lock(mutex_);
      loops_.store(loop, std::memory_order_release);
    }
    wake_.notify_all();
    take_items(loop, 0);
    wait_until_done(items);
    if (failed_.load(std::memory_order_acquire)) rethrow();
  }

 private:
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      loops_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  static constexpr std::uint32_t kClosed = 0xffffffffU;
  static std::uint64_t make_ticket(std::uint64_t loop, std::uint32_t item) {
    return loop << 32 | item;
  }

  void take_items(std::uint64_t loop, unsigned worker) {
    std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
    for (;;) {
      const auto item = static_cast<std::uint32_t>(ticket);
      if (ticket != make_ticket(loop, item) || item == kClosed) return;
      if (item >= items_.load(std::memory_order_acquire)) return;
      // On failure the ticket is read again. On success the loop cannot end before this item.
      if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel,
                                         std::memory_order_acquire)) {
        continue;
      }
      run_item(item, worker);
      ++ticket;
    }
  }

  void run_item(std::size_t item, unsigned worker) {
    if (!failed_.load(std::memory_order_relaxed)) {
      try {
        (*body_)(item, worker);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (!error_) error_ = std::current_exception();
        failed_.store(true, std::memory_order_release);
      }
    }
    done_.fetch_add(1, std::memory_order_release);
  }

  void wait_until_done(std::size_t items) {
    for (int spins = 0; done_.load(std::memory_order_acquire) != items; ++spins) {
      if (spins < kSpins) {
        relax();
      } else {
        std::this_thread::yield();
      }
    }
  }

  [[noreturn]] void rethrow() {
    const std::lock_guard lock(mutex_);
    std::rethrow_exception(std::exchange(error_, nullptr));
  }

  void work(unsigned worker) {
    std::uint64_t seen = 0;
    for (;;) {
      wait_for_loop_after(seen);
      seen = loops_.load(std::memory_order_acquire);
      if (stopping_) return;
      take_items(seen, worker);
    }
  }

  void wait_for_loop_after(std::uint64_t seen) {
    for (int spins = 0; spins < kSpins; ++spins) {
      if (loops_.load(std::memory_order_acquire) != seen) return;
      relax();
    }
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return loops_.load(std::memory_order_acquire) != seen; });
  }

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<std::uint64_t> loops_{0};   // number of the newest loop; a new one calls the workers
  std::atomic<std::uint64_t> ticket_{0};  // low half of the loop's number, next item
  std::atomic<std::uint32_t> items_{0};   // changes only while the ticket is closed
  std::atomic<std::size_t> done_{0};
  std::atomic<bool> failed_{false};
  const std::function<void(std::size_t, unsigned)>* body_ = nullptr;
  std::exception_ptr error_;
  std::atomic<bool> stopping_{false};
};

ThreadPool::ThreadPool(unsigned threads) {
  WINNOW_CHECK(threads >= 1);
  state_ = std::make_unique<State>(threads);
}
ThreadPool::~ThreadPool() = default;

unsigned ThreadPool::size() const { return state_->size(); }

void ThreadPool::run(std::size_t items, const std::function<void(std::size_t, unsigned)>& body) {
  state_->run(items, body);
}

Range split(std::size_t total, std::size_t parts, std::size_t i) {
  const std::size_t base = total / parts;
  const std::size_t extra = total % parts;  // the first `extra` parts are one longer
  const std::size_t begin = i * base + (i < extra ? i : extra);
  return {begin, begin + base + (i < extra ? 1 : 0)};
}

}  // namespace winnow::os

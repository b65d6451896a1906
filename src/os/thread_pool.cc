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

class ThreadPool::State {
 public:
  explicit State(unsigned threads) {
    for (unsigned worker = 1; worker < threads; ++worker) {
      workers_.emplace_back([this, worker] { work(worker); });
    }
  }

  ~State() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  unsigned size() const { return static_cast<unsigned>(workers_.size()) + 1; }

  void run(std::size_t items, const std::function<void(std::size_t, unsigned)>& body) {
    if (workers_.empty() || items <= 1) {
      for (std::size_t item = 0; item < items; ++item) body(item, 0);
      return;
    }
    body_ = &body;
    items_ = items;
    error_ = nullptr;
    next_.store(0, std::memory_order_relaxed);
    running_.store(static_cast<unsigned>(workers_.size()), std::memory_order_relaxed);
    {
      // The lock orders the new generation against a worker that is about to sleep.
      const std::lock_guard lock(mutex_);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    take_items(0);
    for (int spins = 0; running_.load(std::memory_order_acquire) != 0; ++spins) {
      if (spins < kSpins) {
        relax();
      } else {
        std::this_thread::yield();
      }
    }
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void take_items(unsigned worker) {
    for (;;) {
      const std::size_t item = next_.fetch_add(1, std::memory_order_relaxed);
      if (item >= items_) return;
      try {
        (*body_)(item, worker);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (!error_) error_ = std::current_exception();
        next_.store(items_, std::memory_order_relaxed);
      }
    }
  }

  void work(unsigned worker) {
    std::uint64_t seen = 0;
    for (;;) {
      wait_for_generation_after(seen);
      seen = generation_.load(std::memory_order_acquire);
      if (stopping_) return;
      take_items(worker);
      running_.fetch_sub(1, std::memory_order_release);
    }
  }

  void wait_for_generation_after(std::uint64_t seen) {
    for (int spins = 0; spins < kSpins; ++spins) {
      if (generation_.load(std::memory_order_acquire) != seen) return;
      relax();
    }
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
  }

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<std::uint64_t> generation_{0};  // counts loops; a new value starts the workers
  std::atomic<unsigned> running_{0};          // workers that have not finished this loop
  std::atomic<std::size_t> next_{0};
  std::size_t items_ = 0;
  const std::function<void(std::size_t, unsigned)>* body_ = nullptr;
  std::exception_ptr error_;
  bool stopping_ = false;
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

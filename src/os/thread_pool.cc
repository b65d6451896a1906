// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Workers look for work for a while before they sleep: phases of one token's forward pass are
// microseconds apart, and waking a sleeping thread costs tens of microseconds.
#include "os/thread_pool.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <mutex>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "os/affinity.h"
#include "os/cpu_topology.h"
#include "os/sleep_gate.h"

namespace winnow::os {
namespace {

using Clock = std::chrono::steady_clock;

// Far shorter than a time slice, so that an idle pool soon leaves the machine alone.
constexpr std::chrono::microseconds kIdleSpin{50};
// Longer than the serial stretches of a forward pass and the choice of the next token.
constexpr std::chrono::microseconds kActiveSpin{1000};
// Looks between two of the clock, which takes as long as one or two.
constexpr int kLooksPerCheck = 32;
constexpr std::size_t kCacheLine = 64;

/// How a thread waits for another.
enum class Patience {
  kSpin,   ///< there is a processor for each thread
  kYield,  ///< there is not: let the others run
  kNone,   ///< there is too little CPU time to spend any on waiting
};

Patience patience_of(unsigned threads, const CpuTopology& topology) {
  if (topology.quota && *topology.quota < threads) return Patience::kNone;
  return threads > topology.allowed.size() ? Patience::kYield : Patience::kSpin;
}

void relax(Patience patience) {
  if (patience == Patience::kYield) {
    std::this_thread::yield();
    return;
  }
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");  // `yield` is a no-op on most cores
#endif
}

}  // namespace

/// A loop is over when its items are done, not when every worker has looked in: on a busy machine a
/// worker may not run for milliseconds, and the others then do its share without it. So a worker
/// may come late, when the loop it was called for is over or another one is running. The ticket
/// makes that harmless: it holds the number of items and the next one in one word, so who advances
/// it has an item of the loop that is running then, and what to call is read only after that.
class ThreadPool::State {
 public:
  State(unsigned threads, Pinning pinning) {
    const CpuTopology topology = cpu_topology();
    patience_ = patience_of(threads, topology);
    // No destructor runs for an object that was never complete: stop what has been started.
    try {
      for (unsigned worker = 1; worker < threads; ++worker) {
        workers_.emplace_back([this, worker] { work(worker); });
        if (pinning == Pinning::kCores) pin(worker, threads, topology);
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

  void run(std::size_t items, Call call, const void* context) {
    if (workers_.empty() || items <= 1) {
      for (std::size_t item = 0; item < items; ++item) call(context, item, 0);
      return;
    }
    WINNOW_CHECK(items < kMostItems);
    // No worker reads these before it has advanced the new ticket.
    call_ = call;
    context_ = context;
    ticket_.store(std::uint64_t{items} << 32 | 1, std::memory_order_seq_cst);
    idle_.wake();
    run_item(call, context, 0, 0);
    const std::size_t own = 1 + take_items(0);
    expected_ += items - own;
    wait_until_done();
    if (failed_.load(std::memory_order_acquire)) rethrow();
  }

  /// Where the caller has a core of its own; else none.
  std::span<const unsigned> caller_core() const { return caller_core_; }

  void add_active(int change) { active_.fetch_add(change, std::memory_order_relaxed); }

 private:
  // Late workers may advance the ticket beyond the last item, once each.
  static constexpr std::size_t kMostItems = std::size_t{1} << 31;
  static std::uint32_t next_of(std::uint64_t ticket) { return static_cast<std::uint32_t>(ticket); }
  static std::uint32_t items_of(std::uint64_t ticket) {
    return static_cast<std::uint32_t>(ticket >> 32);
  }
  static bool has_items(std::uint64_t ticket) { return next_of(ticket) < items_of(ticket); }

  void pin(unsigned worker, unsigned threads, const CpuTopology& topology) {
    std::span<const unsigned> cores = topology.cores;
    if (threads > cores.size()) cores = topology.allowed;
    if (threads == cores.size()) {
      caller_core_.assign(1, cores.front());
      cores = cores.subspan(worker, 1);
    }
    pin_thread(workers_.back(), cores);
  }

  void stop() {
    stopping_.store(true, std::memory_order_seq_cst);
    idle_.wake();
    for (auto& worker : workers_) worker.join();
  }

  /// Runs items until none are left; returns how many. All belong to one loop: it cannot end before
  /// the workers have reported theirs, which they do after this.
  std::size_t take_items(unsigned worker) {
    std::size_t taken = 0;
    while (has_items(ticket_.load(std::memory_order_acquire))) {
      const std::uint64_t ticket = ticket_.fetch_add(1, std::memory_order_acq_rel);
      if (!has_items(ticket)) break;
      run_item(call_, context_, next_of(ticket), worker);
      ++taken;
      if (next_of(ticket) + 1 == items_of(ticket)) break;  // saves a look at a contended word
    }
    return taken;
  }

  void run_item(Call call, const void* context, std::size_t item, unsigned worker) {
    if (failed_.load(std::memory_order_relaxed)) return;
    try {
      call(context, item, worker);
    } catch (...) {
      const std::lock_guard lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
      failed_.store(true, std::memory_order_release);
    }
  }

  [[noreturn]] void rethrow() {
    const std::lock_guard lock(error_mutex_);
    failed_.store(false, std::memory_order_relaxed);
    std::rethrow_exception(std::exchange(error_, nullptr));
  }

  /// Waits for `ready` as the patience allows; false when it is time to sleep.
  template <typename Ready>
  bool spin_until(Ready ready) {
    if (ready()) return true;
    if (patience_ == Patience::kNone) return false;
    const Clock::time_point begin = Clock::now();
    bool active = false;
    for (;;) {
      for (int look = 0; look < kLooksPerCheck; ++look) {
        relax(patience_);
        if (ready()) return true;
      }
      active = active || active_.load(std::memory_order_relaxed) != 0;
      if (Clock::now() - begin > (active ? kActiveSpin : kIdleSpin)) return false;
    }
  }

  void wait_until_done() {
    const auto done = [this] { return done_.load(std::memory_order_seq_cst) == expected_; };
    if (!spin_until(done)) finished_.sleep_until(done);
  }

  void work(unsigned worker) {
    const auto called = [this] {
      return has_items(ticket_.load(std::memory_order_seq_cst)) ||
             stopping_.load(std::memory_order_seq_cst);
    };
    for (;;) {
      if (!spin_until(called)) idle_.sleep_until(called);
      if (stopping_.load(std::memory_order_relaxed)) return;
      const std::size_t taken = take_items(worker);
      if (taken == 0) continue;
      done_.fetch_add(taken, std::memory_order_seq_cst);
      finished_.wake();
    }
  }

  // What belongs to one loop is together on one cache line, so that a worker fetches it at once;
  // what is written by different sides lies apart.
  alignas(kCacheLine) std::atomic<std::uint64_t> ticket_{0};  // items of the loop, next item
  Call call_ = nullptr;
  const void* context_ = nullptr;
  std::atomic<bool> failed_{false};

  alignas(kCacheLine) std::atomic<std::uint64_t> done_{0};  // items that workers have done, ever
  SleepGate finished_;                                      // the caller, waiting for the workers

  alignas(kCacheLine) std::atomic<bool> stopping_{false};
  std::atomic<int> active_{0};
  Patience patience_ = Patience::kSpin;
  std::vector<unsigned> caller_core_;
  SleepGate idle_;  // workers without work

  alignas(kCacheLine) std::uint64_t expected_ = 0;  // what done_ is after this loop; the caller's
  std::mutex error_mutex_;
  std::exception_ptr error_;
  std::vector<std::thread> workers_;
};

ThreadPool::ThreadPool(unsigned threads, Pinning pinning) {
  WINNOW_CHECK(threads >= 1);
  state_ = std::make_unique<State>(threads, pinning);
}
ThreadPool::~ThreadPool() = default;

unsigned ThreadPool::size() const { return state_->size(); }

void ThreadPool::run_erased(std::size_t items, Call call, const void* context) {
  state_->run(items, call, context);
}

ThreadPool::ActiveScope::ActiveScope(ThreadPool& pool)
    : pool_(pool), pinned_(pool.state_->caller_core()) {
  pool_.state_->add_active(1);
}
ThreadPool::ActiveScope::~ActiveScope() { pool_.state_->add_active(-1); }

Range split(std::size_t total, std::size_t parts, std::size_t i) {
  const std::size_t base = total / parts;
  const std::size_t extra = total % parts;  // the first `extra` parts are one longer
  const std::size_t begin = i * base + (i < extra ? i : extra);
  return {begin, begin + base + (i < extra ? 1 : 0)};
}

}  // namespace winnow::os

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A pool of workers that run one parallel loop at a time.
#pragma once

#include <cstddef>
#include <memory>
#include <type_traits>

#include "os/affinity.h"

namespace winnow::os {

/// Where the workers run. The thread that calls `run` belongs to the program.
enum class Pinning {
  /// Each worker on a physical core of its own (see CpuTopology) when the pool takes all of them,
  /// the first one left to the caller, who stays there while an ActiveScope lives: a thread that
  /// wakes from waiting for a disk is often put where its waker runs, on a worker's core, and holds
  /// up the loop there with another core idle. Else on any of these cores, which leaves the system
  /// free to
  /// keep out of the way of other programs. A system that refuses is ignored.
  kCores,
  kNone,
};

/// Threads for parallel loops. The thread that calls `run` takes part, so a pool of one starts no
/// thread. Not reentrant: a body must not call `run`. One `run` at a time.
///
/// Idle workers look for work for some 50 us before they sleep, 1 ms while an ActiveScope lives,
/// and not at all where the cgroup's CPU quota is below the number of threads, which looking would
/// burn.
class ThreadPool {
 public:
  /// threads: 1 or more. Throws Error{kSystem} when the system starts fewer.
  explicit ThreadPool(unsigned threads, Pinning pinning = Pinning::kCores);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  unsigned size() const;

  /// Calls body(item, worker) once for each item in [0, items), items taken in order by whoever is
  /// free; worker in [0, size()) is unique among bodies running at the same time, for scratch
  /// memory; 0 is the calling thread, which has the first item. items < 2^31. Returns when all have
  /// finished. The first exception of a body is rethrown, after the items already begun have
  /// finished; the rest are not begun. Costs a fraction of a microsecond while the workers are
  /// awake and does not allocate.
  template <typename Body>
  void run(std::size_t items, Body&& body) {
    using Callable = std::remove_reference_t<Body>;
    const auto call = [](const void* context, std::size_t item, unsigned worker) {
      (*static_cast<Callable*>(const_cast<void*>(context)))(item, worker);
    };
    run_erased(items, call, &body);
  }

  /// While one lives, loops follow each other closely (a forward pass): workers stay awake in
  /// between. Any number at a time. Begins and ends in the thread that calls `run`.
  class ActiveScope {
   public:
    explicit ActiveScope(ThreadPool& pool);
    ActiveScope(const ActiveScope&) = delete;
    ActiveScope& operator=(const ActiveScope&) = delete;
    ~ActiveScope();

   private:
    ThreadPool& pool_;
    PinnedHere pinned_;
  };

 private:
  using Call = void (*)(const void* context, std::size_t item, unsigned worker);
  void run_erased(std::size_t items, Call call, const void* context);

  class State;
  std::unique_ptr<State> state_;
};

/// A contiguous part of [0, total): item `i` of `parts`, sizes differing by at most 1.
struct Range {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::size_t size() const { return end - begin; }
};
Range split(std::size_t total, std::size_t parts, std::size_t i);

}  // namespace winnow::os

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A pool of workers that run one parallel loop at a time.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace winnow::os {

/// Threads for parallel loops. The thread that calls `run` takes part, so a pool of one starts no
/// thread. Not reentrant: a body must not call `run`. One `run` at a time.
class ThreadPool {
 public:
  /// threads: 1 or more. Throws Error{kSystem} when the system starts fewer.
  explicit ThreadPool(unsigned threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  unsigned size() const;

  /// Calls body(item, worker) once for each item in [0, items), items taken in order by whoever is
  /// free; worker in [0, size()) is unique among bodies running at the same time, for scratch
  /// memory. Returns when all have finished. The first exception of a body is rethrown, after the
  /// items already begun have finished; the rest are not begun.
  void run(std::size_t items, const std::function<void(std::size_t item, unsigned worker)>& body);

 private:
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

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What a parallel loop costs beside its work. `trivial`: loops of items so small that the caller
// may do them alone. `meeting`: one item per thread, each of which waits for the others to begin,
// so that the time is that of calling every worker and hearing from it: only for threads that have
// a core.
//
//   build/release/bin/thread_pool_bench
#include <benchmark/benchmark.h>

#include <atomic>
#include <vector>

#include "os/thread_pool.h"

namespace winnow {
namespace {

/// Loops of range(1) items on range(0) threads, one after the other, as in a forward pass.
void trivial(benchmark::State& state) {
  os::ThreadPool pool(static_cast<unsigned>(state.range(0)));
  const auto items = static_cast<std::size_t>(state.range(1));
  std::vector<std::size_t> out(items * 8);
  const os::ThreadPool::ActiveScope active(pool);
  for (auto _ : state) {
    pool.run(items, [&](std::size_t item, unsigned worker) { out[item * 8] += worker + 1; });
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(trivial)
    ->ArgNames({"threads", "items"})
    ->ArgsProduct({{1, 2, 4, 8}, {2, 8, 64}})
    ->UseRealTime();

void meeting(benchmark::State& state) {
  const auto threads = static_cast<std::size_t>(state.range(0));
  os::ThreadPool pool(static_cast<unsigned>(threads));
  const os::ThreadPool::ActiveScope active(pool);
  std::atomic<std::size_t> begun{0};
  std::size_t loop = 0;
  for (auto _ : state) {
    const std::size_t all = ++loop * threads;
    pool.run(threads, [&](std::size_t, unsigned) {
      begun.fetch_add(1);
      while (begun.load() < all) {
      }
    });
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(meeting)->ArgName("threads")->Arg(2)->UseRealTime();

}  // namespace
}  // namespace winnow

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "os/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <thread>
#include <vector>

#include "base/error.h"
#include "os/cpu_topology.h"

namespace winnow::os::thread_pool_test {
namespace {

class Pools : public ::testing::TestWithParam<unsigned> {
 protected:
  ThreadPool pool_{GetParam()};
};

TEST_P(Pools, CallTheBodyOnceForEachItem) {
  EXPECT_EQ(pool_.size(), GetParam());
  for (const std::size_t items : {0, 1, 2, 3, 17, 1000}) {
    std::vector<int> calls(items);  // plain ints: two calls for one item would be a race
    pool_.run(items, [&](std::size_t item, unsigned) { ++calls[item]; });
    EXPECT_EQ(calls, std::vector<int>(items, 1));
  }
}

TEST_P(Pools, NumberWorkersSoThatTwoAtATimeDiffer) {
  std::vector<std::atomic<int>> inside(pool_.size());
  std::atomic<bool> collided{false};
  pool_.run(500, [&](std::size_t, unsigned worker) {
    if (inside.at(worker).fetch_add(1) != 0) collided = true;
    std::this_thread::yield();
    inside.at(worker).fetch_sub(1);
  });
  EXPECT_FALSE(collided);
}

TEST_P(Pools, MakeTheResultsVisibleToTheCaller) {
  std::vector<std::size_t> squares(64);
  for (std::size_t round = 0; round < 3000; ++round) {
    const std::size_t items = round % squares.size();
    pool_.run(items, [&](std::size_t item, unsigned) { squares[item] = item * item + round; });
    for (std::size_t i = 0; i < items; ++i) ASSERT_EQ(squares[i], i * i + round);
  }
}

TEST_P(Pools, WakeAfterTheWorkersHaveGoneToSleep) {
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::atomic<int> calls{0};
    pool_.run(8, [&](std::size_t, unsigned) { ++calls; });
    EXPECT_EQ(calls, 8);
  }
}

TEST_P(Pools, RethrowAnExceptionOfABody) {
  try {
    pool_.run(100, [](std::size_t item, unsigned) {
      if (item == 42) throw std::runtime_error("item 42");
    });
    FAIL() << "nothing was thrown";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "item 42");
  }
}

TEST_P(Pools, BeginNoItemsAfterAnException) {
  std::atomic<int> begun{0};
  EXPECT_THROW(pool_.run(1'000'000,
                         [&](std::size_t, unsigned) {
                           ++begun;
                           throw std::runtime_error("first");
                         }),
               std::runtime_error);
  EXPECT_LE(begun, static_cast<int>(pool_.size()));
}

TEST_P(Pools, WorkOnAfterAnException) {
  for (int round = 0; round < 50; ++round) {
    EXPECT_THROW(pool_.run(9, [](std::size_t, unsigned) { throw std::runtime_error("again"); }),
                 std::runtime_error);
    std::atomic<int> calls{0};
    pool_.run(9, [&](std::size_t, unsigned) { ++calls; });
    ASSERT_EQ(calls, 9);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, Pools, ::testing::Values(1U, 2U, 3U, 8U));

TEST_P(Pools, WorkInAndAfterActiveScopesAlike) {
  for (int round = 0; round < 3; ++round) {
    const ThreadPool::ActiveScope outer(pool_);
    for (int loop = 0; loop < 100; ++loop) {
      const ThreadPool::ActiveScope inner(pool_);
      std::atomic<int> calls{0};
      pool_.run(8, [&](std::size_t, unsigned) { ++calls; });
      ASSERT_EQ(calls, 8);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(3));  // beyond the patience of both
  }
  std::atomic<int> calls{0};
  pool_.run(8, [&](std::size_t, unsigned) { ++calls; });
  EXPECT_EQ(calls, 8);
}

TEST_P(Pools, WaitForItemsThatTakeLongerThanTheirPatience) {
  std::atomic<int> finished{0};
  pool_.run(pool_.size() + 1, [&](std::size_t item, unsigned) {
    if (item != 0) std::this_thread::sleep_for(std::chrono::milliseconds(4));
    ++finished;
  });
  EXPECT_EQ(finished, static_cast<int>(pool_.size()) + 1);
}

TEST_P(Pools, GiveTheCallerTheFirstItem) {
  std::thread::id first;
  pool_.run(100, [&](std::size_t item, unsigned) {
    if (item == 0) first = std::this_thread::get_id();
  });
  EXPECT_EQ(first, std::this_thread::get_id());
}

/// The processors that each worker of a pool may run on; the caller's first.
std::vector<std::vector<unsigned>> affinities(ThreadPool& pool) {
  std::vector<std::vector<unsigned>> result(pool.size());
  std::atomic<unsigned> begun{0};
  pool.run(pool.size(), [&](std::size_t, unsigned worker) {
    ++begun;
    while (begun != pool.size()) std::this_thread::yield();  // so that nobody takes two
    result[worker] = cpu_topology().allowed;
  });
  return result;
}

TEST(Pinning, GivesEachWorkerACoreOfItsOwnWhenThePoolTakesAll) {
  const CpuTopology topology = cpu_topology();
  ThreadPool pool(static_cast<unsigned>(topology.cores.size()));
  const auto found = affinities(pool);
  EXPECT_EQ(found[0], topology.allowed) << "the caller's thread is not the pool's";
  for (std::size_t worker = 1; worker < found.size(); ++worker) {
    EXPECT_EQ(found[worker], std::vector<unsigned>{topology.cores[worker]});
  }
}

TEST(Pinning, KeepsTheCallerOnTheFirstCoreWhileAScopeLives) {
  const CpuTopology topology = cpu_topology();
  ThreadPool pool(static_cast<unsigned>(topology.cores.size()));
  // A pool of one has no workers to keep away from.
  const std::vector<unsigned> own =
      pool.size() == 1 ? topology.allowed : std::vector<unsigned>{topology.cores[0]};
  {
    const ThreadPool::ActiveScope outer(pool);
    {
      const ThreadPool::ActiveScope inner(pool);
      EXPECT_EQ(affinities(pool)[0], own);
    }
    EXPECT_EQ(affinities(pool)[0], own);
  }
  EXPECT_EQ(affinities(pool)[0], topology.allowed);
}

TEST(Pinning, LeavesACallerWhereItsProgramHasPutIt) {
  const CpuTopology topology = cpu_topology();
  ThreadPool pool(static_cast<unsigned>(topology.cores.size()));
  std::thread caller([&] {
    const std::vector<unsigned> last{topology.cores.back()};
    const PinnedHere own(last);
    const ThreadPool::ActiveScope active(pool);
    EXPECT_EQ(cpu_topology().allowed, last);
  });
  caller.join();
}

TEST(Pinning, LetsMoreWorkersThanCoresRunAnywhere) {
  const CpuTopology topology = cpu_topology();
  ThreadPool pool(static_cast<unsigned>(topology.allowed.size()) + 1);
  for (const auto& cpus : affinities(pool)) EXPECT_EQ(cpus, topology.allowed);
}

TEST(Pinning, IsLeftOutWhenNotWanted) {
  const CpuTopology topology = cpu_topology();
  ThreadPool pool(static_cast<unsigned>(topology.cores.size()), Pinning::kNone);
  for (const auto& cpus : affinities(pool)) EXPECT_EQ(cpus, topology.allowed);
}

TEST(ThreadPool, EndsWithoutEverHavingRun) {
  for (int round = 0; round < 20; ++round) ThreadPool pool(4);
}

TEST(ThreadPool, OfOneRunsOnTheCallingThread) {
  ThreadPool pool(1);
  std::thread::id ran;
  pool.run(1, [&](std::size_t, unsigned) { ran = std::this_thread::get_id(); });
  EXPECT_EQ(ran, std::this_thread::get_id());
}

TEST(ThreadPool, RefusesToHaveNoThreads) { EXPECT_THROW(ThreadPool(0), Error); }

// The sanitizers reserve terabytes of address space, so that it cannot be limited under them.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define WINNOW_UNLIMITED_ADDRESS_SPACE
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WINNOW_UNLIMITED_ADDRESS_SPACE
#endif
#ifndef WINNOW_UNLIMITED_ADDRESS_SPACE
TEST(ThreadPoolDeathTest, StopsTheThreadsItStartedWhenTheSystemRefusesMore) {
  // In a process of its own: a limit on address space leaves room for a few stacks only.
  const auto start_too_many = [] {
    const struct rlimit small = {std::size_t{1} << 29, std::size_t{1} << 29};
    ::setrlimit(RLIMIT_AS, &small);
    ::alarm(20);  // waiting for ever is a failure too
    try {
      ThreadPool pool(1000);
    } catch (const Error& error) {
      std::fputs(error.what(), stderr);
      std::_Exit(error.code() == ErrorCode::kSystem ? 7 : 1);
    }
    std::_Exit(0);
  };
  EXPECT_EXIT(start_too_many(), ::testing::ExitedWithCode(7), "of 1000 threads could be started");
}
#endif

TEST(Split, CoversAllItemsInOrderWithSizesThatDifferByAtMostOne) {
  for (const std::size_t total : {0, 1, 7, 8, 100}) {
    for (const std::size_t parts : {1, 2, 3, 8, 16}) {
      std::size_t next = 0;
      for (std::size_t i = 0; i < parts; ++i) {
        const Range range = split(total, parts, i);
        EXPECT_EQ(range.begin, next);
        EXPECT_GE(range.size(), total / parts);
        EXPECT_LE(range.size(), total / parts + 1);
        next = range.end;
      }
      EXPECT_EQ(next, total);
    }
  }
}

}  // namespace
}  // namespace winnow::os::thread_pool_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "os/cpu_topology.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <thread>

namespace winnow::os::cpu_topology_test {
namespace {

using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::Optional;

/// A kernel's description of a machine in a folder.
class Machine : public ::testing::Test {
 protected:
  Machine() {
    std::string pattern = (std::filesystem::temp_directory_path() / "winnow-XXXXXX").string();
    root_ = ::mkdtemp(pattern.data());
  }
  ~Machine() override { std::filesystem::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text << "\n";
  }
  void write_cpu(unsigned cpu, const std::string& file, const std::string& text) {
    write("sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/" + file, text);
  }
  CpuTopology read(const std::vector<unsigned>& allowed) const {
    return read_cpu_topology(root_, allowed);
  }

 private:
  std::filesystem::path root_;
};

TEST_F(Machine, ThatSaysNothingHasACoreForEachProcessor) {
  const CpuTopology topology = read({0, 1, 5});
  EXPECT_THAT(topology.allowed, ElementsAre(0, 1, 5));
  EXPECT_THAT(topology.cores, ElementsAre(0, 1, 5));
  EXPECT_EQ(topology.quota, std::nullopt);
  EXPECT_EQ(topology.best_threads(), 3U);
}

TEST_F(Machine, WithTwoThreadsPerCoreCountsEachCoreOnce) {
  for (unsigned cpu = 0; cpu < 8; ++cpu) {  // numbered as most x86 machines do
    write_cpu(cpu, "topology/thread_siblings_list",
              std::to_string(cpu % 4) + "," + std::to_string(cpu % 4 + 4));
  }
  EXPECT_THAT(read({0, 1, 2, 3, 4, 5, 6, 7}).cores, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(read({2, 3, 6, 7}).cores, ElementsAre(2, 3));
  EXPECT_THAT(read({3, 4, 5}).cores, ElementsAre(3, 4, 5)) << "the siblings are not allowed";
}

TEST_F(Machine, WithNeighbouringSiblingsCountsEachCoreOnce) {
  for (unsigned cpu = 0; cpu < 4; ++cpu) {
    write_cpu(cpu, "topology/thread_siblings_list", cpu < 2 ? "0-1" : "2-3");
  }
  EXPECT_THAT(read({0, 1, 2, 3}).cores, ElementsAre(0, 2));
}

TEST_F(Machine, OfTwoKindsOfCoresUsesTheFastOnes) {
  write("sys/devices/cpu_core/cpus", "0-3");
  write("sys/devices/cpu_atom/cpus", "4-5");
  for (unsigned cpu = 0; cpu < 4; ++cpu) {
    write_cpu(cpu, "topology/thread_siblings_list", cpu < 2 ? "0-1" : "2-3");
  }
  EXPECT_THAT(read({0, 1, 2, 3, 4, 5}).cores, ElementsAre(0, 2));
  EXPECT_THAT(read({3, 4, 5}).cores, ElementsAre(3));
  EXPECT_THAT(read({4, 5}).cores, ElementsAre(4, 5)) << "only slow ones are allowed";
}

TEST_F(Machine, OfThreeCapacitiesLeavesOutTheLeast) {
  const std::vector<std::string> capacities = {"250", "250", "870", "870", "1024"};
  for (unsigned cpu = 0; cpu < 5; ++cpu) write_cpu(cpu, "cpu_capacity", capacities[cpu]);
  EXPECT_THAT(read({0, 1, 2, 3, 4}).cores, ElementsAre(2, 3, 4));
  EXPECT_THAT(read({0, 1}).cores, ElementsAre(0, 1));
}

TEST_F(Machine, WithNonsenseInItsFilesHasACoreForEachProcessor) {
  for (const char* nonsense : {"", "x", "0-", "-1", "0-99999999999", "3,,4", "0-1;2"}) {
    write("sys/devices/cpu_core/cpus", nonsense);
    write_cpu(0, "topology/thread_siblings_list", nonsense);
    write_cpu(1, "cpu_capacity", nonsense);
    EXPECT_THAT(read({0, 1}).cores, ElementsAre(0, 1)) << nonsense;
  }
}

TEST_F(Machine, LimitsThreadsToTheQuotaRoundedUp) {
  write("sys/fs/cgroup/cpu.max", "150000 100000");
  const CpuTopology topology = read({0, 1, 2, 3});
  EXPECT_THAT(topology.quota, Optional(DoubleEq(1.5)));
  EXPECT_EQ(topology.best_threads(), 2U);
  write("sys/fs/cgroup/cpu.max", "5000 100000");
  EXPECT_EQ(read({0, 1}).best_threads(), 1U);
  write("sys/fs/cgroup/cpu.max", "900000 100000");
  EXPECT_EQ(read({0, 1}).best_threads(), 2U);
  write("sys/fs/cgroup/cpu.max", "max 100000");
  EXPECT_EQ(read({0, 1}).quota, std::nullopt);
}

TEST_F(Machine, TakesTheLeastQuotaOnTheWayUpToTheRoot) {
  write("proc/self/cgroup", "0::/user/session/job");
  write("sys/fs/cgroup/user/session/job/cpu.max", "max 100000");
  write("sys/fs/cgroup/user/session/cpu.max", "300000 100000");
  write("sys/fs/cgroup/user/cpu.max", "200000 100000");
  write("sys/fs/cgroup/other/cpu.max", "100000 100000");
  EXPECT_THAT(read({0, 1, 2, 3}).quota, Optional(DoubleEq(2)));
}

TEST_F(Machine, KnowsQuotasOfTheFirstVersionOfCgroups) {
  write("proc/self/cgroup", "7:memory:/elsewhere\n4:cpu,cpuacct:/job\n0::/");
  write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1");
  write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000");
  EXPECT_EQ(read({0}).quota, std::nullopt);
  write("sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "250000");
  write("sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000");
  EXPECT_THAT(read({0}).quota, Optional(DoubleEq(2.5)));
}

TEST(CpuTopologyOfThisMachine, IsAmongWhatTheThreadMayUse) {
  const CpuTopology topology = cpu_topology();
  ASSERT_FALSE(topology.cores.empty());
  EXPECT_LE(topology.allowed.size(), std::thread::hardware_concurrency());
  for (const unsigned core : topology.cores) {
    EXPECT_THAT(topology.allowed, ::testing::Contains(core));
  }
  EXPECT_GE(topology.best_threads(), 1U);
  EXPECT_LE(topology.best_threads(), topology.cores.size());
}

}  // namespace
}  // namespace winnow::os::cpu_topology_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "os/cpu_topology.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <numeric>
#include <set>
#include <string>
#include <string_view>
#include <thread>

#include "os/cpu_features.h"

namespace winnow::os {
namespace {

namespace fs = std::filesystem;

// Beyond any machine; a list that says more is not believed.
constexpr unsigned kMostCpus = 1 << 16;

std::string line_of(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

/// The number at the front of `text`, which loses it; nothing when there is none.
std::optional<unsigned> take_number(std::string_view& text) {
  unsigned value = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(rest - text.data()));
  return value;
}

/// Reads "0-3,8,10-11"; empty when it is anything else.
std::set<unsigned> parse_cpu_list(std::string_view text) {
  std::set<unsigned> cpus;
  while (!text.empty()) {
    const auto first = take_number(text);
    auto last = first;
    if (first && text.starts_with('-')) {
      text.remove_prefix(1);
      last = take_number(text);
    }
    if (!first || !last || *last >= kMostCpus) return {};
    for (unsigned cpu = *first; cpu <= *last; ++cpu) cpus.insert(cpu);
    if (!text.empty() && text.front() != ',') return {};
    if (!text.empty()) text.remove_prefix(1);
  }
  return cpus;
}

fs::path cpu_folder(const fs::path& root, unsigned cpu) {
  return root / fmt::format("sys/devices/system/cpu/cpu{}", cpu);
}

std::vector<unsigned> performance_cpus(const fs::path& root, std::span<const unsigned> allowed) {
  const std::set<unsigned> fast = parse_cpu_list(line_of(root / "sys/devices/cpu_core/cpus"));
  unsigned greatest = 0;
  std::vector<unsigned> capacities;
  for (const unsigned cpu : allowed) {
    const std::string text = line_of(cpu_folder(root, cpu) / "cpu_capacity");
    std::string_view view = text;
    capacities.push_back(take_number(view).value_or(0));
    greatest = std::max(greatest, capacities.back());
  }
  std::vector<unsigned> result;
  for (std::size_t i = 0; i < allowed.size(); ++i) {
    const bool small = capacities[i] != 0 && capacities[i] < greatest / 2;  // 0: not said
    const bool slow = small || (!fast.empty() && !fast.contains(allowed[i]));
    if (!slow) result.push_back(allowed[i]);
  }
  return result.empty() ? std::vector<unsigned>(allowed.begin(), allowed.end()) : result;
}

/// The first of each group of siblings.
std::vector<unsigned> one_of_each_core(const fs::path& root, const std::vector<unsigned>& cpus) {
  std::vector<unsigned> result;
  std::set<unsigned> seen;
  for (const unsigned cpu : cpus) {
    if (seen.contains(cpu)) continue;
    seen.merge(
        parse_cpu_list(line_of(cpu_folder(root, cpu) / "topology" / "thread_siblings_list")));
    result.push_back(cpu);
  }
  return result;
}

/// Version 2 keeps quota and period in one file, version 1 in two. Nothing when there is no limit.
std::optional<double> quota_in(const fs::path& folder) {
  std::string quota;
  double period = 0;
  if (std::ifstream v2(folder / "cpu.max"); v2 >> quota >> period) {
    unsigned long long value = 0;
    const auto [rest, error] =
        std::from_chars(quota.data(), quota.data() + quota.size(), value);  // or "max"
    if (error == std::errc() && period > 0) return static_cast<double>(value) / period;
    return std::nullopt;
  }
  double value = 0;
  std::ifstream v1_quota(folder / "cpu.cfs_quota_us");
  std::ifstream v1_period(folder / "cpu.cfs_period_us");
  if (v1_quota >> value && v1_period >> period && value > 0 && period > 0) return value / period;
  return std::nullopt;
}

/// The process's cgroup in the version 2 hierarchy, or in that of version 1's cpu controller, as
/// /proc/self/cgroup has it ("0::/a/b", "4:cpu,cpuacct:/a/b"); "/" when it does not say.
fs::path cgroup_path(const fs::path& root, bool version_2) {
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = fmt::format(",{},", line.substr(first + 1, second - first - 1));
    const bool wanted =
        version_2 ? controllers == ",," : controllers.find(",cpu,") != std::string::npos;
    if (wanted) return line.substr(second + 1);
  }
  return "/";
}

std::optional<double> least_quota(const fs::path& root) {
  std::optional<double> least;
  const auto look = [&](const fs::path& mount, fs::path group) {
    for (;; group = group.parent_path()) {
      if (const auto quota = quota_in(mount / group.relative_path())) {
        least = std::min(*quota, least.value_or(*quota));
      }
      if (group.relative_path().empty()) return;
    }
  };
  const fs::path base = root / "sys/fs/cgroup";
  look(base, cgroup_path(root, /*version_2=*/true));
  look(base / "cpu", cgroup_path(root, /*version_2=*/false));
  return least;
}

}  // namespace

unsigned CpuTopology::best_threads() const {
  const auto most = static_cast<unsigned>(cores.size());
  if (!quota) return most;
  return std::clamp(static_cast<unsigned>(std::ceil(std::min(*quota, 1e6))), 1U, most);
}

CpuTopology read_cpu_topology(const fs::path& root, std::span<const unsigned> allowed) {
  return {.allowed = {allowed.begin(), allowed.end()},
          .cores = one_of_each_core(root, performance_cpus(root, allowed)),
          .quota = least_quota(root)};
}

CpuTopology cpu_topology() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<unsigned> allowed;
  if (::sched_getaffinity(0, sizeof set, &set) == 0) {
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) allowed.push_back(cpu);
    }
  }
  if (allowed.empty()) {  // more processors than the set holds
    allowed.resize(std::max(1U, std::thread::hardware_concurrency()));
    std::iota(allowed.begin(), allowed.end(), 0U);
  }
  return read_cpu_topology("/", allowed);
}

unsigned usable_cpus() { return cpu_topology().best_threads(); }

}  // namespace winnow::os

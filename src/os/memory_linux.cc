// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "os/memory.h"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>

namespace winnow::os {
namespace {

std::optional<std::uint64_t> number_in(const std::string& path) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;  // no such file, or "max"
}

/// Where one version of cgroups says what.
struct Hierarchy {
  std::string_view line;  ///< of /proc/self/cgroup, what stands before the path
  std::string_view root;
  std::string_view limit, usage;  ///< names of files
  std::string_view idle;          ///< key in memory.stat
};
constexpr Hierarchy kVersions[] = {
    {"0::", "/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"},
    {":memory:", "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
     "total_inactive_file"},
};

std::uint64_t value_of(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  std::string word;
  std::uint64_t value = 0;
  while (file >> word >> value) {
    if (word == key) return value;
  }
  return 0;
}

/// The path of this process's group as the system names it; "" is the root's.
std::string own_group(const Hierarchy& version) {
  std::ifstream file("/proc/self/cgroup");
  std::string line;
  while (std::getline(file, line)) {
    const std::size_t at = line.find(version.line);
    if (at == std::string::npos) continue;
    const std::string path = line.substr(at + version.line.size());
    return path == "/" ? "" : path;
  }
  return "";
}

struct GroupMemory {
  std::optional<std::uint64_t> limit;  ///< the least of the groups this process is in
  std::optional<std::uint64_t> left;
};

/// Version 1 writes a huge number for "none". A path that a container does not see has no files:
/// what is left then are the groups above it, up to the root.
GroupMemory group_memory() {
  GroupMemory result;
  const auto lower = [](std::optional<std::uint64_t>& least, std::uint64_t value) {
    least = std::min(least.value_or(value), value);
  };
  for (const Hierarchy& version : kVersions) {
    for (std::string group = own_group(version);; group.resize(group.rfind('/'))) {
      const std::string folder = std::string(version.root) + group + "/";
      const auto limit = number_in(folder + std::string(version.limit));
      const auto usage = number_in(folder + std::string(version.usage));
      if (limit && usage) {
        const std::uint64_t idle = value_of(folder + "memory.stat", version.idle);
        const std::uint64_t used = *usage > idle ? *usage - idle : 0;
        lower(result.limit, *limit);
        lower(result.left, *limit > used ? *limit - used : 0);
      }
      if (group.empty()) break;
    }
  }
  return result;
}

/// "MemTotal:" and the like.
std::uint64_t machine_memory(std::string_view key) {
  std::ifstream info("/proc/meminfo");
  std::string word;
  while (info >> word) {
    std::uint64_t kib = 0;
    if (word == key && info >> kib) return kib * 1024;
  }
  return 0;
}

}  // namespace

Bytes available_memory() {
  const std::uint64_t available = machine_memory("MemAvailable:");
  return {std::min(available, group_memory().left.value_or(available))};
}

Bytes total_memory() {
  const std::uint64_t total = machine_memory("MemTotal:");
  return {std::min(total, group_memory().limit.value_or(total))};
}

Bytes resident_memory() {
  std::ifstream file("/proc/self/statm");
  std::uint64_t all = 0;
  std::uint64_t resident = 0;
  if (!(file >> all >> resident)) return {};
  return {resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE))};
}

void return_freed_memory() {
#ifdef __GLIBC__
  constexpr int kLarge = 1 << 20;
  mallopt(M_ARENA_MAX, 1);
  // Set, they no longer grow with the largest piece that was ever freed.
  mallopt(M_MMAP_THRESHOLD, kLarge);
  mallopt(M_TRIM_THRESHOLD, kLarge);
#endif
}

}  // namespace winnow::os

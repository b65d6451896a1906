// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "os/memory.h"

#include <malloc.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>

namespace winnow::os {
namespace {

std::optional<std::uint64_t> number_in(const char* path) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;  // no such file, or "max"
}

/// What a cgroup's limit leaves; nothing without one. Version 1 writes a huge number for "none".
std::optional<std::uint64_t> left_in_cgroup() {
  auto limit = number_in("/sys/fs/cgroup/memory.max");
  auto used = number_in("/sys/fs/cgroup/memory.current");
  if (!limit || !used) {
    limit = number_in("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    used = number_in("/sys/fs/cgroup/memory/memory.usage_in_bytes");
  }
  if (!limit || !used) return std::nullopt;
  return *limit > *used ? *limit - *used : 0;
}

}  // namespace

Bytes available_memory() {
  std::ifstream info("/proc/meminfo");
  std::string word;
  std::uint64_t available = 0;
  while (info >> word) {
    std::uint64_t kib = 0;
    if (word == "MemAvailable:" && info >> kib) available = kib * 1024;
  }
  return {std::min(available, left_in_cgroup().value_or(available))};
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

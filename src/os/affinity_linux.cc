// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "os/affinity.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>

namespace winnow::os {
namespace {

/// False where the system refuses.
bool pin(pthread_t thread, std::span<const unsigned> cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const unsigned cpu : cpus) {
    if (cpu < CPU_SETSIZE) CPU_SET(cpu, &set);
  }
  return ::pthread_setaffinity_np(thread, sizeof set, &set) == 0;
}

std::optional<std::vector<unsigned>> cpus_of(pthread_t thread) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::pthread_getaffinity_np(thread, sizeof set, &set) != 0) return std::nullopt;
  std::vector<unsigned> cpus;
  for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

}  // namespace

void pin_thread(std::thread& thread, std::span<const unsigned> cpus) {
  (void)pin(thread.native_handle(), cpus);
}

PinnedHere::PinnedHere(std::span<const unsigned> cpus) {
  if (cpus.empty()) return;
  before_ = cpus_of(::pthread_self());
  if (!before_) return;
  const bool allowed = std::all_of(cpus.begin(), cpus.end(), [this](unsigned cpu) {
    return std::binary_search(before_->begin(), before_->end(), cpu);
  });
  if (!allowed || !pin(::pthread_self(), cpus)) before_.reset();
}

PinnedHere::~PinnedHere() {
  if (before_) (void)pin(::pthread_self(), *before_);
}

}  // namespace winnow::os

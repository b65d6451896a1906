// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Which processors are worth a thread: one of each physical core, and of fast cores only.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <vector>

namespace winnow::os {

/// The part of the machine that this process may use.
struct CpuTopology {
  /// Logical processors it may run on, ascending.
  std::vector<unsigned> allowed;
  /// Of these the first of each physical performance core, ascending; never empty. Where the
  /// allowed processors are all slow ones, those.
  std::vector<unsigned> cores;
  /// CPU time per time that the cgroup grants, in processors; nothing without a limit.
  std::optional<double> quota;

  /// Threads that compute best: one per core, and no more than the quota rounded up.
  unsigned best_threads() const;
};

/// Reads the kernel's description below `root` for the allowed processors (ascending, not empty).
/// Whatever it does not say is taken as: each processor a fast core of its own, no quota.
/// Performance cores are those of /sys/devices/cpu_core (x86), or of at least half of the greatest
/// cpu_capacity (Arm; below that are the cores meant to save power). The quota is the least one on
/// the way from the process's cgroup up to the root; versions 1 and 2.
CpuTopology read_cpu_topology(const std::filesystem::path& root, std::span<const unsigned> allowed);

/// That of the calling thread on this machine.
CpuTopology cpu_topology();

}  // namespace winnow::os

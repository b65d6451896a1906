// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Which processors a thread may run on.
#pragma once

#include <optional>
#include <span>
#include <thread>
#include <vector>

namespace winnow::os {

/// Lets `thread`, which has been started and not joined, run on `cpus` only. Does nothing where the
/// system refuses: where a thread runs changes its speed, not its results.
void pin_thread(std::thread& thread, std::span<const unsigned> cpus);

/// Keeps the calling thread on `cpus` while it lives; then the thread may run where it could
/// before. Nothing changes when `cpus` is empty, when the thread may not run on all of them, or
/// where the system refuses. Begins and ends in one thread.
class PinnedHere {
 public:
  explicit PinnedHere(std::span<const unsigned> cpus);
  PinnedHere(const PinnedHere&) = delete;
  PinnedHere& operator=(const PinnedHere&) = delete;
  ~PinnedHere();

 private:
  std::optional<std::vector<unsigned>> before_;  // nothing: unchanged
};

}  // namespace winnow::os

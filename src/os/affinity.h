// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Which processors a thread may run on.
#pragma once

#include <span>
#include <thread>

namespace winnow::os {

/// Lets `thread`, which has been started and not joined, run on `cpus` only. Does nothing where the
/// system refuses: where a thread runs changes its speed, not its results.
void pin_thread(std::thread& thread, std::span<const unsigned> cpus);

}  // namespace winnow::os

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How much memory the system would still give, and what the process keeps of what it was given.
#pragma once

#include "base/units.h"

namespace winnow::os {

/// Memory that this process may still take without pushing others out: the smaller of what the
/// kernel calls available and what its cgroup's limit leaves (and those of the groups above) beside
/// what is in use; the cache of files that nobody uses is not. 0 when unknown.
Bytes available_memory();

/// All memory that this process could ever have: what the machine has, or its cgroup's limit if
/// that is less; 0 when unknown.
Bytes total_memory();

/// Memory of this process that is resident now (VmRSS), pages of files included; 0 when unknown.
Bytes resident_memory();

/// From now on large pieces that are freed go back to the system at once, and all threads take
/// memory from one pool: for a process that has promised to stay below a limit. Others are faster
/// without. To be called before threads begin.
void return_freed_memory();

}  // namespace winnow::os

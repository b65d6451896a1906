// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How much memory the system would still give, and what the process keeps of what it was given.
#pragma once

#include "base/units.h"

namespace winnow::os {

/// Memory that this process may still take without pushing others out: the smaller of what the
/// kernel calls available and what its cgroup's limit leaves; 0 when unknown.
Bytes available_memory();

/// From now on large pieces that are freed go back to the system at once, and all threads take
/// memory from one pool: for a process that has promised to stay below a limit. Others are faster
/// without. To be called before threads begin.
void return_freed_memory();

}  // namespace winnow::os

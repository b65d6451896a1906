// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How much memory the system would still give.
#pragma once

#include "base/units.h"

namespace winnow::os {

/// Memory that this process may still take without pushing others out: the smaller of what the
/// kernel calls available and what its cgroup's limit leaves; 0 when unknown.
Bytes available_memory();

}  // namespace winnow::os

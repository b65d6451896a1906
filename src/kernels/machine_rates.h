// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What this machine can do at best, measured: the limits that speeds are compared with.
#pragma once

#include "base/units.h"
#include "kernels/kernels.h"
#include "os/aligned_buffer.h"
#include "os/thread_pool.h"

namespace winnow::kernels {

/// Bytes per second at which all threads of the pool together read `size` bytes of anonymous memory
/// once, with the loads of this ISA: the best of several rounds, after one that fills the memory.
/// Takes about half a second per GiB. Throws Error{kSystem} without memory.
double measure_read_rate(const Kernels& kernels, os::ThreadPool& pool, Bytes size, os::Pages pages);

/// Memory to measure with: 1 GiB, far beyond any cache, or a quarter of what is available if that
/// is less; at least 64 MiB.
Bytes read_rate_size(Bytes available);

/// Int8 operations (two per multiply-add) per second of all threads together, with the widest
/// integer dot product of the ISA on operands in registers: the best of several rounds.
/// Takes about half a second.
double measure_int8_rate(const Kernels& kernels, os::ThreadPool& pool);

}  // namespace winnow::kernels

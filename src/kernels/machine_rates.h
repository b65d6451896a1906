// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What this machine can do at best, measured: the limits that speeds are compared with.
#pragma once

#include <cstdint>
#include <vector>

#include "base/units.h"
#include "kernels/kernels.h"
#include "os/aligned_buffer.h"
#include "os/thread_pool.h"

namespace winnow::kernels {

/// How fast all threads of the pool together read anonymous memory, with the loads of this ISA,
/// again and again beside other work: on a shared machine that changes from second to second.
/// `kernels` and `pool` are borrowed.
class ReadRateMeter {
 public:
  /// Takes and fills `size` bytes, rounded down to 8 MiB but at least that. Throws Error{kSystem}
  /// without memory.
  ReadRateMeter(const Kernels& kernels, os::ThreadPool& pool, Bytes size, os::Pages pages);
  /// Seconds that one read of all the memory takes.
  double read_once();
  double size() const { return static_cast<double>(buffer_.size()); }
  /// Bytes per second of a few reads one after the other.
  double rate();

 private:
  const Kernels& kernels_;
  os::ThreadPool& pool_;
  os::AlignedBuffer buffer_;
  std::vector<std::uint64_t> sums_;
};

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

/// The same again and again beside other work. `kernels` and `pool` are borrowed.
class Int8RateMeter {
 public:
  /// Finds out how much work takes about `seconds` on one thread.
  Int8RateMeter(const Kernels& kernels, os::ThreadPool& pool, double seconds);
  /// Operations per second of one piece of that work on each thread.
  double rate();

 private:
  const Kernels& kernels_;
  os::ThreadPool& pool_;
  std::uint64_t steps_ = 1 << 16;
  std::vector<std::uint64_t> operations_;
};

}  // namespace winnow::kernels

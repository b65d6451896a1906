// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What the processor can do, found once and passed on as a value.
#pragma once

#include <cstdint>
#include <string>

namespace winnow::os {

/// Sets of instructions that kernels are written for, as bits. kAvx2 stands for AVX2, FMA, F16C and
/// BMI2 together; kAvxVnni for the 256-bit VEX form; kAvx512Vnni for F, BW, VL, DQ and VNNI. The
/// latter two come only with kAvx2. kDotprod stands for the int8 dot products of 64-bit Arm, kI8mm
/// for its products of int8 matrices, which come only with kDotprod.
enum class CpuFeature : std::uint32_t {
  kNone = 0,
  kAvx2 = 1U << 0,
  kAvxVnni = 1U << 1,
  kAvx512Vnni = 1U << 2,
  kDotprod = 1U << 3,
  kI8mm = 1U << 4,
};

/// The features that both the processor and the operating system (saved registers) support.
class CpuFeatures {
 public:
  /// Asks the processor.
  static CpuFeatures detect();
  constexpr explicit CpuFeatures(std::uint32_t bits = 0) : bits_(bits) {}
  constexpr bool has(CpuFeature feature) const {
    const auto wanted = static_cast<std::uint32_t>(feature);
    return (bits_ & wanted) == wanted;
  }
  /// "avx2 avx_vnni avx512_vnni", "dotprod i8mm", or "none".
  std::string to_string() const;

 private:
  std::uint32_t bits_;
};

/// Threads that compute best on the processors this process may use: one per physical performance
/// core, no more than the cgroup's CPU quota (rounded up), at least 1. See CpuTopology.
unsigned usable_cpus();

}  // namespace winnow::os

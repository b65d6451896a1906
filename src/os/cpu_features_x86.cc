// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// CPUID through the compiler's builtins, which also check that the OS saves the wide registers. On
// a processor of a family without a file of its own nothing is found.
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "os/cpu_features.h"

namespace winnow::os {
namespace {

constexpr std::uint32_t bit(CpuFeature feature) { return static_cast<std::uint32_t>(feature); }

#if defined(__x86_64__)
/// F16C and AVX-VNNI have no name in __builtin_cpu_supports of all compilers: bits of CPUID. Both
/// use the registers of AVX2, so they count only where the builtin reports that.
bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

bool has_avx_vnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & (1U << 4)) != 0;
}
#endif

}  // namespace

CpuFeatures CpuFeatures::detect() {
  std::uint32_t bits = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
      !__builtin_cpu_supports("bmi2") || !has_f16c()) {
    return CpuFeatures(0);  // every other set builds on these
  }
  bits |= bit(CpuFeature::kAvx2);
  if (has_avx_vnni()) bits |= bit(CpuFeature::kAvxVnni);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vnni")) {
    bits |= bit(CpuFeature::kAvx512Vnni);
  }
#endif
  return CpuFeatures(bits);
}

}  // namespace winnow::os

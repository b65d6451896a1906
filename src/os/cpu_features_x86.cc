// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// CPUID through the compiler's builtins, which also check that the OS saves the wide registers.
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <thread>

#include "os/cpu_features.h"

namespace winnow::os {
namespace {

constexpr std::uint32_t bit(CpuFeature feature) { return static_cast<std::uint32_t>(feature); }

/// CPU bandwidth limit of the cgroup in cores, or 0 when there is none. Version 2 keeps quota and
/// period in one file, version 1 in two.
double cgroup_cpu_quota() {
  std::string quota;
  double period = 0;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2 >> quota >> period) {
    return quota == "max" || period <= 0 ? 0 : std::stod(quota) / period;
  }
  double quota_us = 0;
  std::ifstream v1_quota("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  std::ifstream v1_period("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  if (v1_quota >> quota_us && v1_period >> period && quota_us > 0 && period > 0) {
    return quota_us / period;
  }
  return 0;
}

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

std::string CpuFeatures::to_string() const {
  std::string text;
  if (has(CpuFeature::kAvx2)) text += "avx2 ";
  if (has(CpuFeature::kAvxVnni)) text += "avx_vnni ";
  if (has(CpuFeature::kAvx512Vnni)) text += "avx512_vnni ";
  if (text.empty()) return "none";
  text.pop_back();
  return text;
}

unsigned usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  unsigned cpus = std::max(1U, std::thread::hardware_concurrency());
  if (::sched_getaffinity(0, sizeof set, &set) == 0) {
    cpus = static_cast<unsigned>(std::max(1, CPU_COUNT(&set)));
  }
  const double quota = cgroup_cpu_quota();
  if (quota > 0) cpus = std::min(cpus, std::max(1U, static_cast<unsigned>(std::ceil(quota))));
  return cpus;
}

}  // namespace winnow::os

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What the kernel tells the process about the processor. Vectors of 16 bytes, fused multiply-adds
// and conversions from and to f16 belong to every 64-bit Arm processor with Linux.
#include <asm/hwcap.h>
#include <sys/auxv.h>

#include "os/cpu_features.h"

namespace winnow::os {

CpuFeatures CpuFeatures::detect() {
  if ((getauxval(AT_HWCAP) & HWCAP_ASIMDDP) == 0) return CpuFeatures(0);
  auto bits = static_cast<std::uint32_t>(CpuFeature::kDotprod);
  if ((getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0) {
    bits |= static_cast<std::uint32_t>(CpuFeature::kI8mm);
  }
  return CpuFeatures(bits);
}

}  // namespace winnow::os

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "os/cpu_features.h"

#include <gtest/gtest.h>

#include <thread>

namespace winnow::os::cpu_features_test {
namespace {

constexpr std::uint32_t bits(CpuFeature feature) { return static_cast<std::uint32_t>(feature); }

TEST(CpuFeatures, AreNamedInOneLine) {
  EXPECT_EQ(CpuFeatures(0).to_string(), "none");
  EXPECT_EQ(CpuFeatures(bits(CpuFeature::kAvx2)).to_string(), "avx2");
  EXPECT_EQ(CpuFeatures(bits(CpuFeature::kAvx2) | bits(CpuFeature::kAvxVnni)).to_string(),
            "avx2 avx_vnni");
  EXPECT_EQ(CpuFeatures(bits(CpuFeature::kDotprod)).to_string(), "dotprod");
  EXPECT_EQ(CpuFeatures(~0U).to_string(), "avx2 avx_vnni avx512_vnni dotprod i8mm");
}

TEST(CpuFeatures, HaveWhatTheirBitsSay) {
  const CpuFeatures avx2(bits(CpuFeature::kAvx2));
  EXPECT_TRUE(avx2.has(CpuFeature::kAvx2));
  EXPECT_FALSE(avx2.has(CpuFeature::kAvx512Vnni));
  EXPECT_TRUE(avx2.has(CpuFeature::kNone));
  EXPECT_TRUE(CpuFeatures(0).has(CpuFeature::kNone));
}

TEST(CpuFeatures, OfThisMachineAreTheSameEveryTimeAndNested) {
  const CpuFeatures features = CpuFeatures::detect();
  EXPECT_EQ(features.to_string(), CpuFeatures::detect().to_string());
  // Kernels that an instruction set lacks are taken from its base, so nothing comes without it.
  if (features.has(CpuFeature::kAvx512Vnni) || features.has(CpuFeature::kAvxVnni)) {
    EXPECT_TRUE(features.has(CpuFeature::kAvx2));
  }
  if (features.has(CpuFeature::kI8mm)) {
    EXPECT_TRUE(features.has(CpuFeature::kDotprod));
  }
}

TEST(UsableCpus, IsAtLeastOneAndAtMostWhatTheMachineHas) {
  EXPECT_GE(usable_cpus(), 1U);
  EXPECT_LE(usable_cpus(), std::thread::hardware_concurrency());
}

}  // namespace
}  // namespace winnow::os::cpu_features_test

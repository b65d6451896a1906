// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Which kernels an x86 processor gets.
#include <gmock/gmock.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/testing.h"

namespace winnow::kernels::dispatch_x86_test {
namespace {

using ::testing::ElementsAre;

os::CpuFeatures avx2_and(os::CpuFeature feature) {
  return os::CpuFeatures(static_cast<std::uint32_t>(os::CpuFeature::kAvx2) |
                         static_cast<std::uint32_t>(feature));
}

std::vector<std::string_view> names(os::CpuFeatures features) {
  std::vector<std::string_view> found;
  for (const Kernels* kernels : supported_isas(features)) found.push_back(kernels->isa);
  return found;
}

TEST(DispatchX86, AutoTakesTheBestThatTheProcessorRuns) {
  const os::CpuFeatures avx2(static_cast<std::uint32_t>(os::CpuFeature::kAvx2));
  EXPECT_EQ(select_kernels("", avx2).isa, "avx2");
  EXPECT_EQ(select_kernels("auto", avx2).isa, "avx2");
  EXPECT_EQ(select_kernels("auto", avx2_and(os::CpuFeature::kAvxVnni)).isa, "avx2_vnni");
  EXPECT_EQ(select_kernels("auto", avx2_and(os::CpuFeature::kAvx512Vnni)).isa, "avx512_vnni");
  EXPECT_EQ(select_kernels("auto", os::CpuFeatures(~0U)).isa, "avx512_vnni");
}

TEST(DispatchX86, NeitherOfTheTwoVnniNeedsTheOther) {
  EXPECT_THAT(names(avx2_and(os::CpuFeature::kAvx512Vnni)),
              ElementsAre("avx512_vnni", "avx2", "scalar"));
  EXPECT_THAT(names(avx2_and(os::CpuFeature::kAvxVnni)),
              ElementsAre("avx2_vnni", "avx2", "scalar"));
}

TEST(DispatchX86, AKernelThatAnIsaLacksIsItsBases) {
  const os::CpuFeatures all(~0U);
  const Kernels& avx2 = select_kernels("avx2", all);
  const Kernels& vnni = select_kernels("avx2_vnni", all);
  EXPECT_EQ(vnni.attend, avx2.attend);
  EXPECT_EQ(vnni.matmul_floats, avx2.matmul_floats);
  EXPECT_NE(vnni.matmul_codes, avx2.matmul_codes);
  EXPECT_NE(vnni.int8_probe, avx2.int8_probe);
}

TEST(DispatchX86, NoKernelOfOneVnniReachesTheOther) {
  const os::CpuFeatures all(~0U);
  const Kernels& wide = select_kernels("avx512_vnni", all);
  const Kernels& vnni = select_kernels("avx2_vnni", all);
  EXPECT_NE(wide.matmul_codes, vnni.matmul_codes);
  EXPECT_NE(wide.int8_probe, vnni.int8_probe);
  for (std::size_t type = 0; type < wide.matmul_of_type.size(); ++type) {
    if (wide.matmul_of_type[type] == nullptr) continue;
    EXPECT_NE(wide.matmul_of_type[type], vnni.matmul_of_type[type]) << type;
  }
}

TEST(DispatchX86, RefusesWhatTheProcessorLacks) {
  try {
    select_kernels("avx2", os::CpuFeatures(0));
    ADD_FAILURE() << "avx2 was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_EQ(error.message(),
              "instruction set 'avx2' is not supported by this processor; this processor runs: "
              "scalar, auto");
  }
}

}  // namespace
}  // namespace winnow::kernels::dispatch_x86_test

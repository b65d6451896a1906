// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Which kernels a 64-bit Arm processor gets.
#include <gtest/gtest.h>

#include "base/error.h"
#include "kernels/testing.h"

namespace winnow::kernels::dispatch_aarch64_test {
namespace {

const os::CpuFeatures kWithDotprod(static_cast<std::uint32_t>(os::CpuFeature::kDotprod));

TEST(DispatchAarch64, AutoTakesTheBestThatTheProcessorRuns) {
  EXPECT_EQ(select_kernels("auto", kWithDotprod).isa, "neon_dotprod");
  EXPECT_EQ(select_kernels("", kWithDotprod).isa, "neon_dotprod");
  EXPECT_EQ(select_kernels("auto", os::CpuFeatures(~0U)).isa, "neon_i8mm");
}

TEST(DispatchAarch64, AKernelThatAnIsaLacksIsItsBases) {
  const os::CpuFeatures all(~0U);
  const Kernels& dotprod = select_kernels("neon_dotprod", all);
  const Kernels& i8mm = select_kernels("neon_i8mm", all);
  EXPECT_EQ(i8mm.attend, dotprod.attend);
  EXPECT_EQ(i8mm.matmul_floats, dotprod.matmul_floats);
  EXPECT_NE(i8mm.int8_probe, dotprod.int8_probe);
  EXPECT_NE(i8mm.matmul_codes, dotprod.matmul_codes);
}

TEST(DispatchAarch64, NoProductWithDotProductsAloneReachesMatrixProducts) {
  const os::CpuFeatures all(~0U);
  const Kernels& dotprod = select_kernels("neon_dotprod", all);
  const Kernels& i8mm = select_kernels("neon_i8mm", all);
  for (std::size_t type = 0; type < i8mm.matmul_of_type.size(); ++type) {
    if (i8mm.matmul_of_type[type] == nullptr) continue;
    EXPECT_NE(i8mm.matmul_of_type[type], dotprod.matmul_of_type[type]) << type;
  }
}

TEST(DispatchAarch64, RefusesWhatTheProcessorLacks) {
  try {
    select_kernels("neon_i8mm", kWithDotprod);
    ADD_FAILURE() << "neon_i8mm was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_EQ(error.message(),
              "instruction set 'neon_i8mm' is not supported by this processor; this processor "
              "runs: neon_dotprod, scalar, auto");
  }
}

}  // namespace
}  // namespace winnow::kernels::dispatch_aarch64_test

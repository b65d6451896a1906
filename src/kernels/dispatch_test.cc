// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <set>
#include <string>

#include "base/error.h"
#include "kernels/testing.h"

namespace winnow::kernels {
namespace {

TEST(Dispatch, EveryFolderWithATableIsListed) {
  std::set<std::string> folders;
  const std::filesystem::path here = std::filesystem::path(WINNOW_SOURCE_DIR) / "src/kernels";
  for (const auto& entry : std::filesystem::directory_iterator(here)) {
    if (exists(entry.path() / "table.def")) folders.insert(entry.path().filename().string());
  }
  std::set<std::string> listed;
  for (const auto name : isa_names()) listed.emplace(name);
  EXPECT_EQ(folders, listed);
}

TEST(Dispatch, EveryIsaHasEveryKernel) {
  for (const Kernels* k : supported_isas(os::CpuFeatures(~0U))) {
    SCOPED_TRACE(k->isa);
    EXPECT_NE(k->quantize_activations, nullptr);
    EXPECT_NE(k->matmul_codes, nullptr);
    EXPECT_NE(k->matmul_floats, nullptr);
    EXPECT_NE(k->dot, nullptr);
    EXPECT_NE(k->axpy, nullptr);
    EXPECT_NE(k->rms_norm, nullptr);
    EXPECT_NE(k->silu_mul, nullptr);
    EXPECT_NE(k->softmax, nullptr);
  }
}

TEST(Dispatch, AProcessorWithoutExtensionsGetsTheReference) {
  const auto isas = supported_isas(os::CpuFeatures(0));
  ASSERT_EQ(isas.size(), 1U);
  EXPECT_EQ(isas.front()->isa, "scalar");
}

TEST(Dispatch, AutoTakesTheBestThatTheProcessorRuns) {
  const os::CpuFeatures avx2(static_cast<std::uint32_t>(os::CpuFeature::kAvx2));
  EXPECT_EQ(select_kernels("", avx2).isa, "avx2");
  EXPECT_EQ(select_kernels("auto", avx2).isa, "avx2");
  EXPECT_EQ(select_kernels("auto", os::CpuFeatures(~0U)).isa, "avx512_vnni");
}

TEST(Dispatch, ANameForcesAnIsa) {
  EXPECT_EQ(select_kernels("scalar", os::CpuFeatures(~0U)).isa, "scalar");
}

/// The message of select_kernels(name, features), which has to be a usage error.
std::string refusal(std::string_view name, os::CpuFeatures features) {
  try {
    select_kernels(name, features);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    return error.message();
  }
  ADD_FAILURE() << "'" << name << "' was accepted";
  return {};
}

TEST(Dispatch, RefusesAnUnknownNameAndListsTheKnown) {
  EXPECT_EQ(refusal("sse9", os::CpuFeatures(0)),
            "unknown instruction set 'sse9'; this processor runs: scalar, auto");
}

TEST(Dispatch, RefusesWhatTheProcessorLacks) {
  EXPECT_EQ(refusal("avx2", os::CpuFeatures(0)),
            "instruction set 'avx2' is not supported by this processor; this processor runs: "
            "scalar, auto");
}

}  // namespace
}  // namespace winnow::kernels

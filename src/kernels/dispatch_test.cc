// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/testing.h"

namespace winnow::kernels {
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

// Fails when a decoder lacks its line in detail/decoders/decoders.def, or a new codec its decoder:
// then it is read through quant::Codec::unpack, which is right but slow, and should be named here.
TEST(Dispatch, EveryIntegerCodecIsReadInItsOwnLayoutByVectors) {
  for (const Kernels* k : supported_isas(os::CpuFeatures(~0U))) {
    for (const quant::Codec* codec : quant::all_codecs()) {
      const bool own = !codec->is_float() && k->isa != "scalar";
      EXPECT_EQ(k->matmul_for(*codec) != k->matmul_codes, own) << k->isa << " " << codec->name;
    }
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
  EXPECT_EQ(select_kernels("auto", avx2_and(os::CpuFeature::kAvxVnni)).isa, "avx2_vnni");
  EXPECT_EQ(select_kernels("auto", avx2_and(os::CpuFeature::kAvx512Vnni)).isa, "avx512_vnni");
  EXPECT_EQ(select_kernels("auto", os::CpuFeatures(~0U)).isa, "avx512_vnni");
}

TEST(Dispatch, NeitherOfTheTwoVnniNeedsTheOther) {
  EXPECT_THAT(names(avx2_and(os::CpuFeature::kAvx512Vnni)),
              ElementsAre("avx512_vnni", "avx2", "scalar"));
  EXPECT_THAT(names(avx2_and(os::CpuFeature::kAvxVnni)),
              ElementsAre("avx2_vnni", "avx2", "scalar"));
}

TEST(Dispatch, AKernelThatAnIsaLacksIsItsBases) {
  const os::CpuFeatures all(~0U);
  const Kernels& avx2 = select_kernels("avx2", all);
  const Kernels& vnni = select_kernels("avx2_vnni", all);
  EXPECT_EQ(vnni.attend, avx2.attend);
  EXPECT_EQ(vnni.matmul_floats, avx2.matmul_floats);
  EXPECT_NE(vnni.matmul_codes, avx2.matmul_codes);
  EXPECT_NE(vnni.int8_probe, avx2.int8_probe);
}

TEST(Dispatch, NoKernelOfOneVnniReachesTheOther) {
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

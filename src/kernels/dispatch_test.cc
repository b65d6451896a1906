// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/testing.h"
#include "quant/block_grid.h"

namespace winnow::kernels::dispatch_test {
namespace {

const std::filesystem::path kHere = std::filesystem::path(WINNOW_SOURCE_DIR) / "src/kernels";

/// The folders that dispatch_<family>.def lists, in its order.
std::vector<std::string> listed_for(const std::string& family) {
  std::ifstream list(kHere / ("dispatch_" + family + ".def"));
  EXPECT_TRUE(list.is_open()) << family;
  std::vector<std::string> folders;
  for (std::string line; std::getline(list, line);) {
    if (line.starts_with("ISA(")) folders.push_back(line.substr(4, line.find(',') - 4));
  }
  return folders;
}

TEST(Dispatch, EveryFolderWithATableIsListed) {
  std::set<std::string> folders;
  for (const auto& entry : std::filesystem::directory_iterator(kHere)) {
    if (exists(entry.path() / "table.def")) folders.insert(entry.path().filename().string());
  }
  std::set<std::string> listed;
  for (const std::string family : {"x86", "aarch64"}) {
    const auto of_family = listed_for(family);
    listed.insert(of_family.begin(), of_family.end());
  }
  EXPECT_EQ(folders, listed);
}

TEST(Dispatch, TheListOfThisFamilyIsTheOneBuiltIn) {
#if defined(__aarch64__)
  const std::vector<std::string> listed = listed_for("aarch64");
#else
  const std::vector<std::string> listed = listed_for("x86");
#endif
  const auto names = isa_names();
  EXPECT_EQ(std::vector<std::string>(names.begin(), names.end()), listed);
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
    EXPECT_NE(k->column_squares, nullptr);
    EXPECT_NE(k->column_values, nullptr);
    EXPECT_NE(k->column_magnitudes, nullptr);
    EXPECT_NE(k->column_products, nullptr);
    EXPECT_NE(k->wide_dots, nullptr);
    EXPECT_NE(k->largest_magnitude, nullptr);
  }
}

// Fails when a decoder lacks its line in detail/decoders/decoders.def, or a new codec its decoder:
// then it is read through quant::Codec::unpack, which is right but slow, and should be named here:
// codebooks are.
TEST(Dispatch, EveryIntegerCodecButCodebooksIsReadInItsOwnLayoutByVectors) {
  for (const Kernels* k : supported_isas(os::CpuFeatures(~0U))) {
    for (const quant::Codec* codec : quant::all_codecs()) {
      const bool codebook = codec->grid != nullptr && codec->grid->codebook != nullptr;
      const bool own = !codec->is_float() && !codebook && k->isa != "scalar";
      EXPECT_EQ(k->matmul_for(*codec) != k->matmul_codes, own) << k->isa << " " << codec->name;
    }
  }
}

TEST(Dispatch, AProcessorWithoutExtensionsGetsTheReference) {
  const auto isas = supported_isas(os::CpuFeatures(0));
  ASSERT_EQ(isas.size(), 1U);
  EXPECT_EQ(isas.front()->isa, "scalar");
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

}  // namespace
}  // namespace winnow::kernels::dispatch_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/build_info.h"

#include <fmt/format.h>

#include "kernels/kernels.h"
#include "os/cpu_features.h"
#include "winnow_build_info.h"

namespace winnow::cli {

std::string_view version() { return WINNOW_VERSION; }
std::string_view commit() { return WINNOW_COMMIT; }
std::string_view build_type() { return WINNOW_BUILD_TYPE; }

std::string compiler() {
#if defined(__clang__)
  return fmt::format("clang++ {}.{}.{}", __clang_major__, __clang_minor__, __clang_patchlevel__);
#else
  return fmt::format("g++ {}.{}.{}", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__);
#endif
}

std::string detected_isa() {
  return std::string(kernels::supported_isas(os::CpuFeatures::detect()).front()->isa);
}

std::string version_text() {
  return fmt::format(
      "winnow {}\ncommit: {}\ncompiler: {}\nbuild: {}\nisa: {}\nformats: GGUF 3, safetensors\n",
      version(), commit(), compiler(), build_type(), detected_isa());
}

}  // namespace winnow::cli

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The names of the processor's features.
#include "os/cpu_features.h"

#include <string>

namespace winnow::os {

std::string CpuFeatures::to_string() const {
  std::string text;
  if (has(CpuFeature::kAvx2)) text += "avx2 ";
  if (has(CpuFeature::kAvxVnni)) text += "avx_vnni ";
  if (has(CpuFeature::kAvx512Vnni)) text += "avx512_vnni ";
  if (has(CpuFeature::kDotprod)) text += "dotprod ";
  if (has(CpuFeature::kI8mm)) text += "i8mm ";
  if (text.empty()) return "none";
  text.pop_back();
  return text;
}

}  // namespace winnow::os

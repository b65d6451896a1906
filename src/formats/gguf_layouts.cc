// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Sizes of the GGUF tensor types, as the format defines them.
#include <algorithm>
#include <array>

#include "formats/gguf.h"

namespace winnow::formats {
namespace {

constexpr std::array kLayouts = {
    GgufLayout{2, "Q4_0", 32, 18},      GgufLayout{3, "Q4_1", 32, 20},
    GgufLayout{6, "Q5_0", 32, 22},      GgufLayout{7, "Q5_1", 32, 24},
    GgufLayout{10, "Q2_K", 256, 84},    GgufLayout{11, "Q3_K", 256, 110},
    GgufLayout{12, "Q4_K", 256, 144},   GgufLayout{13, "Q5_K", 256, 176},
    GgufLayout{14, "Q6_K", 256, 210},   GgufLayout{15, "Q8_K", 256, 292},
    GgufLayout{16, "IQ2_XXS", 256, 66}, GgufLayout{17, "IQ2_XS", 256, 74},
    GgufLayout{18, "IQ3_XXS", 256, 98}, GgufLayout{19, "IQ1_S", 256, 50},
    GgufLayout{20, "IQ4_NL", 32, 18},   GgufLayout{21, "IQ3_S", 256, 110},
    GgufLayout{22, "IQ2_S", 256, 82},   GgufLayout{23, "IQ4_XS", 256, 136},
    GgufLayout{24, "I8", 1, 1},         GgufLayout{25, "I16", 1, 2},
    GgufLayout{26, "I32", 1, 4},        GgufLayout{27, "I64", 1, 8},
    GgufLayout{28, "F64", 1, 8},        GgufLayout{29, "IQ1_M", 256, 56},
    GgufLayout{34, "TQ1_0", 256, 54},   GgufLayout{35, "TQ2_0", 256, 66},
    GgufLayout{39, "MXFP4", 32, 17},    GgufLayout{40, "NVFP4", 64, 36},
    GgufLayout{41, "Q1_0", 128, 18},
};

}  // namespace

std::optional<GgufLayout> find_gguf_layout(std::uint32_t type) {
  if (const quant::Codec* codec = quant::find_codec_by_ggml_type(type)) {
    return GgufLayout{type, codec->name, codec->block_size, codec->block_bytes};
  }
  const auto found = std::find_if(kLayouts.begin(), kLayouts.end(),
                                  [&](const GgufLayout& layout) { return layout.type == type; });
  return found == kLayouts.end() ? std::nullopt : std::optional(*found);
}

}  // namespace winnow::formats

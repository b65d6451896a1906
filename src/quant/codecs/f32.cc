// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// F32: IEEE binary32, little-endian, stored as it is.
#include <cstring>

#include "quant/codec.h"

namespace winnow::quant {
namespace {

void decode(const std::byte* blocks, std::size_t num_blocks, float* out) noexcept {
  std::memcpy(out, blocks, num_blocks * sizeof(float));
}

void encode(const float* weights, std::size_t num_blocks, const float* /*importance*/,
            std::byte* out) noexcept {
  std::memcpy(out, weights, num_blocks * sizeof(float));
}

}  // namespace

extern const Codec kF32{.name = "F32",
                        .ggml_type = 0,
                        .file_type = 0,
                        .block_size = 1,
                        .block_bytes = 4,
                        .fallback = "",
                        .decode = decode,
                        .encode = encode,
                        .unpack = nullptr,
                        .has_offsets = false};

}  // namespace winnow::quant

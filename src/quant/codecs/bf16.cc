// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// BF16: the upper half of an f32, little-endian; encoding rounds to nearest even
// and clamps to the largest finite value.
#include <algorithm>
#include <cstring>

#include "quant/codec.h"
#include "tensor/half.h"

namespace winnow::quant {
namespace {

constexpr float kLargest = tensor::bf16_to_float(0x7f7f);

void decode(const std::byte* blocks, std::size_t num_blocks, float* out) noexcept {
  for (std::size_t i = 0; i < num_blocks; ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, blocks + 2 * i, sizeof bits);
    out[i] = tensor::bf16_to_float(bits);
  }
}

void encode(const float* weights, std::size_t num_blocks, const float* /*importance*/,
            std::byte* out) noexcept {
  for (std::size_t i = 0; i < num_blocks; ++i) {
    const std::uint16_t bits = tensor::float_to_bf16(std::clamp(weights[i], -kLargest, kLargest));
    std::memcpy(out + 2 * i, &bits, sizeof bits);
  }
}

}  // namespace

extern const Codec kBf16{.name = "BF16",
                         .ggml_type = 30,
                         .file_type = 32,
                         .block_size = 1,
                         .block_bytes = 2,
                         .fallback = "",
                         .decode = decode,
                         .encode = encode,
                         .unpack = nullptr,
                         .has_offsets = false};

}  // namespace winnow::quant

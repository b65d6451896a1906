// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// F16: IEEE binary16, little-endian; encoding rounds to nearest even and
// clamps to the largest finite value: one infinite weight would make every output NaN.
#include <algorithm>
#include <cstring>

#include "quant/codec.h"
#include "tensor/half.h"

namespace winnow::quant {
namespace {

constexpr float kLargest = 65504.0F;

void decode(const std::byte* blocks, std::size_t num_blocks, float* out) noexcept {
  for (std::size_t i = 0; i < num_blocks; ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, blocks + 2 * i, sizeof bits);
    out[i] = tensor::half_to_float(bits);
  }
}

void encode(const float* weights, std::size_t num_blocks, const float* /*importance*/,
            std::byte* out) noexcept {
  for (std::size_t i = 0; i < num_blocks; ++i) {
    const std::uint16_t bits = tensor::float_to_half(std::clamp(weights[i], -kLargest, kLargest));
    std::memcpy(out + 2 * i, &bits, sizeof bits);
  }
}

}  // namespace

extern const Codec kF16{.name = "F16",
                        .ggml_type = 1,
                        .file_type = 1,
                        .block_size = 1,
                        .block_bytes = 2,
                        .fallback = "",
                        .decode = decode,
                        .encode = encode,
                        .unpack = nullptr,
                        .has_offsets = false};

}  // namespace winnow::quant

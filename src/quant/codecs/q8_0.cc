// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Q8_0: blocks of 32 weights; f16 scale d, then 32 int8 codes q. w = d * q.
#include <cmath>
#include <cstring>

#include "quant/codec.h"
#include "tensor/half.h"

namespace winnow::quant {
namespace {

constexpr std::size_t kBlock = 32;
constexpr std::size_t kBytes = 34;

float block_scale(const std::byte* block) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, block, sizeof bits);
  return tensor::half_to_float(bits);
}

void unpack(const std::byte* blocks, std::size_t num_blocks, IntegerForm out) noexcept {
  for (std::size_t b = 0; b < num_blocks; ++b, blocks += kBytes) {
    std::memcpy(out.codes + b * kBlock, blocks + 2, kBlock);
    out.scales[2 * b] = out.scales[2 * b + 1] = block_scale(blocks);
  }
}

void decode(const std::byte* blocks, std::size_t num_blocks, float* out) noexcept {
  for (std::size_t b = 0; b < num_blocks; ++b, blocks += kBytes, out += kBlock) {
    const float d = block_scale(blocks);
    for (std::size_t j = 0; j < kBlock; ++j) {
      out[j] = d * static_cast<float>(static_cast<std::int8_t>(blocks[2 + j]));
    }
  }
}

void encode(const float* weights, std::size_t num_blocks, const float* /*importance*/,
            std::byte* out) noexcept {
  for (std::size_t b = 0; b < num_blocks; ++b, weights += kBlock, out += kBytes) {
    float largest = 0;
    for (std::size_t j = 0; j < kBlock; ++j) largest = std::fmax(largest, std::fabs(weights[j]));
    const float d = largest / 127.0F;
    const float inverse = d > 0 ? 1.0F / d : 0.0F;
    const std::uint16_t bits = tensor::float_to_half(d);
    std::memcpy(out, &bits, sizeof bits);
    for (std::size_t j = 0; j < kBlock; ++j) {
      out[2 + j] = static_cast<std::byte>(static_cast<std::int8_t>(std::lround(weights[j] * inverse)));
    }
  }
}

}  // namespace

extern const Codec kQ8_0{.name = "Q8_0",
                         .ggml_type = 8,
                         .file_type = 7,
                         .block_size = kBlock,
                         .block_bytes = kBytes,
                         .fallback = "F16",
                         .decode = decode,
                         .encode = encode,
                         .unpack = unpack,
                         .has_offsets = false};

}  // namespace winnow::quant

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// MXFP4 (OCP Microscaling Formats 1.0): blocks of 32 weights; an exponent byte e, then 16 bytes
// whose low nibbles are the codes of weights 0..15 and high nibbles of 16..31. w = 2^(e - 127) * v,
// v a float of sign, two bits of exponent and one of mantissa: 0, 0.5, 1, 1.5, 2, 3, 4 or 6.
// e = 255 is NaN in that document and no exception in GGUF files, which are followed here.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "quant/block_bits.h"
#include "quant/one_level.h"

namespace winnow::quant {
namespace {

/// The values v doubled, so that they are integers; stored as sign and index of the magnitude.
struct FloatLevels {
  static constexpr unsigned kSign = 8;
  static constexpr std::size_t kCodes = 2 * kSign;
  static constexpr std::array<std::int8_t, kCodes> kValues = {0, 1,  2,  3,  4,  6,  8,  12,
                                                              0, -1, -2, -3, -4, -6, -8, -12};

  static Lanes nearest(Lanes v) {
    const Lanes magnitude = v < 0.0F ? -v : v;
    Lanes level = splat(0.0F);
    for (std::size_t i = 1; i < kSign; ++i) {
      const float middle = 0.5F * static_cast<float>(kValues[i - 1] + kValues[i]);
      const auto gap = static_cast<float>(kValues[i] - kValues[i - 1]);
      level += magnitude > middle ? splat(gap) : splat(0.0F);
    }
    return v < 0.0F ? -level : level;
  }
  static std::uint8_t stored(float level) {
    std::uint8_t index = 0;
    while (static_cast<float>(kValues[index]) < std::fabs(level)) ++index;
    return static_cast<std::uint8_t>(level < 0 ? index | kSign : index);
  }
  static constexpr std::int8_t code(std::uint8_t stored) { return kValues[stored]; }
};

/// 2^(exponent - 128), exponent in [0, 255]; the lowest two are subnormal.
float power_of_two(std::uint32_t exponent) {
  return std::bit_cast<float>(exponent < 2 ? 0x00200000U << exponent : (exponent - 1U) << 23);
}

struct Layout {
  using Levels = FloatLevels;
  static constexpr std::size_t kBlock = kSmallBlock;
  static constexpr std::size_t kBytes = 1 + kBlock / 2;
  static constexpr bool kHasOffsets = false;
  /// The scale of the doubled values is 2^(e - kBias).
  static constexpr int kBias = 128;
  static constexpr int kLargestExponent = 252;  // with which 6 is still finite

  static void unpack(const std::byte* block, IntegerForm out) {
    std::uint8_t codes[kBlock] = {};
    unpack_bits(block + 1, kBlock / 2, 0, 4, codes);
    unpack_bits(block + 1, kBlock / 2, 4, 4, codes + kBlock / 2);
    for (std::size_t j = 0; j < kBlock; ++j) out.codes[j] = FloatLevels::code(codes[j]);
    out.scales[0] = out.scales[1] = power_of_two(std::to_integer<std::uint32_t>(block[0]));
  }

  static void pack(const BlockParameters& in, std::byte* block) {
    std::fill_n(block, kBytes, std::byte{0});
    block[0] = static_cast<std::byte>(in.scale);
    pack_bits(in.codes, kBlock / 2, 0, 4, block + 1);
    pack_bits(in.codes + kBlock / 2, kBlock / 2, 4, 4, block + 1);
  }

  static float scale_value(std::uint16_t exponent) { return power_of_two(exponent); }

  /// The power of two nearest in ratio; a negative or zero value takes the smallest.
  static std::uint16_t nearest_scale(float value) {
    const float exponent = std::nearbyint(std::log2(std::max(value, power_of_two(0))));
    return static_cast<std::uint16_t>(
        std::clamp(static_cast<int>(exponent) + kBias, 0, kLargestExponent));
  }
};

/// Tries the power of two that holds all weights with room to spare, and the seven below it, at
/// which ever more weights clip: what important weights gain may outweigh that. Blocks below 2^-25
/// become zeros, as in the types with an f16 scale.
BlockParameters search(const float* weights, const float* importance) {
  constexpr std::size_t kSize = Layout::kBlock;
  constexpr std::size_t kTrials = 2 * kLanes;
  float x[kSize];
  float w[kSize];
  BlockParameters block;
  block.scales[0] = 1;
  const BlockUnits units = normalize(weights, importance, kSize, x, w);
  if (units.unit == 0) return block;
  const int unit_exponent = std::ilogb(units.unit) + Layout::kBias;
  const int first = std::min(-2, Layout::kLargestExponent - unit_exponent);
  int best = first;
  float best_error = std::numeric_limits<float>::infinity();
  for (std::size_t i = 0; i < kTrials; i += kLanes) {
    const int power = first - static_cast<int>(i);
    const Lanes scale = std::ldexp(1.0F, power) * Lanes{1.0F, 0.5F, 0.25F, 0.125F};
    const Lanes error = symmetric_sums<FloatLevels>(x, w, kSize, scale).error;
    const std::size_t lane = smallest_lane(error);
    if (error[lane] < best_error) {
      best_error = error[lane];
      best = power - static_cast<int>(lane);
    }
  }
  store_codes<FloatLevels>(x, kSize, std::ldexp(1.0F, best), 0.0F, block.codes);
  block.scale = static_cast<std::uint16_t>(unit_exponent + best);
  return block;
}

using Encoder = BlockEncoder<Layout, search>;

}  // namespace

extern const Codec kMxfp4{
    .name = "MXFP4",
    .ggml_type = 39,
    .file_type = 38,
    .block_size = Layout::kBlock,
    .block_bytes = Layout::kBytes,
    .fallback = "F16",
    .decode = decode_blocks<Layout>,
    .encode = Encoder::encode,
    .unpack = unpack_blocks<Layout>,
    .has_offsets = false,
    .grid = &Encoder::kGrid,
};

}  // namespace winnow::quant

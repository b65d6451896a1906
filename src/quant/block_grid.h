// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What the blocks of a codec can express, for quantisers that choose codes and scales themselves:
//   w_j = s_k * level_j - m_k,  s_k = scale * scales[k],  m_k = min_scale * mins[k],  k = j /
//   sub_size,
// every product and the difference rounded to f32, which is what `Codec::decode` gives.
// A layout with one scale per block has one sub-block whose integers are fixed at 1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tensor/half.h"

namespace winnow::quant {

constexpr std::size_t kSuperBlock = 256;

/// One block before its bits are laid out.
struct BlockParameters {
  static constexpr std::size_t kMostSubBlocks = 16;
  std::uint16_t scale = 0;      ///< as the block stores it: f16 bits, or the exponent of MXFP4
  std::uint16_t min_scale = 0;  ///< f16 bits
  std::int8_t scales[kMostSubBlocks] = {};
  std::int8_t mins[kMostSubBlocks] = {};
  /// From `BlockGrid::fit` and to `BlockGrid::pack`: indices into `BlockGrid::levels`.
  std::uint8_t codes[kSuperBlock] = {};
};

/// Integers low, low + step, .. high that a sub-block's scale or minimum may be.
struct IntegerRange {
  int low = 0;
  int high = 0;
  int step = 1;
  bool is_fixed() const { return low == high; }
};

/// Weights whose signs a codebook's layout keeps in one field.
constexpr std::size_t kSignGroup = 8;

/// What the number of negative levels in a group has to be.
enum class SignParity : std::uint8_t { kAny, kEven, kOdd };

/// The lists that the search for points reads, for kernels that search with vectors. A word holds
/// the index of a point's i-th magnitude in its i-th field: 2 bits each in groups of 8 weights, 3
/// in groups of 4.
struct PointLists {
  static constexpr std::size_t kCount = 16;
  /// [levels^group, kCount] words of the points nearest to the pattern sum_i level_i * levels^i,
  /// nearest first.
  const std::uint16_t* words;
  /// [kCount] the magnitude that each field selects, over and over; beyond the last one, that.
  const float* magnitudes;
};

/// The points that groups of weights may be, where not every combination of levels exists.
struct Codebook {
  std::size_t group;  ///< weights per point
  std::span<const std::int8_t>
      magnitudes;  ///< rising, over 0; the levels are these and their negatives
  std::size_t num_points;
  /// Writes the magnitudes [group] of a point.
  void (*magnitudes_of)(std::size_t point, std::int8_t* out) noexcept;
  /// Whether each kSignGroup weights have an even number of negative levels.
  bool even_signs;

  /// The best `count` (1..kMostChoices) of the likely points for one group, signs included: small
  /// sum_j weight_j * (target_j - step * level_j)^2, best first. target, weights: [group], weights
  /// over 0; codes: [count * group], indices of levels.
  void (*nearest)(const float* target, const float* weights, float step, SignParity parity,
                  std::size_t count, std::uint8_t* codes) noexcept;
  /// The same for kSignGroup weights, one choice, the number of negative levels as the layout wants
  /// it: what `fit` takes once its scales are fixed.
  void (*choose)(const float* target, const float* weights, float step,
                 std::uint8_t* codes) noexcept;
  static constexpr std::size_t kMostChoices = 4;
  /// Half the least distance of two levels.
  float least_half_gap;
  /// Made when they are first asked for. Thread-safe; they live in static storage.
  PointLists (*lists)() noexcept;
};

/// One object per codec, made by block_grid_of.h from the codec's own layout. All functions are
/// reentrant and neither allocate nor throw.
struct BlockGrid {
  std::size_t block_size;               ///< weights per block, at most kSuperBlock
  std::size_t sub_size;                 ///< weights that share integers
  std::span<const std::int8_t> levels;  ///< rising
  IntegerRange scales;
  IntegerRange mins;  ///< 0..0: the layout has no minima
  /// Null where every code is possible.
  const Codebook* codebook;
  /// Whether the block's scale is any f16 of either sign, times a constant; else it is a power of
  /// two.
  bool has_half_scale;
  /// Value of a stored scale, and the stored scale nearest to a value (clamped, never infinite).
  float (*scale_value)(std::uint16_t stored) noexcept;
  std::uint16_t (*nearest_scale)(float value) noexcept;

  /// Scales of one block with small sum_j importance_j * (w_j - w'_j)^2, and the nearest codes.
  /// weights, importance: [block_size], as for `Codec::encode`, which is `pack` of this.
  void (*fit)(const float* weights, const float* importance, BlockParameters& out) noexcept;
  /// Writes the codec's block_bytes; integers within their ranges, codes below levels.size().
  void (*pack)(const BlockParameters& in, std::byte* block) noexcept;

  bool has_mins() const { return mins.high != 0; }
  /// Whether the levels are consecutive integers.
  bool is_uniform() const {
    return static_cast<std::size_t>(levels.back() - levels.front()) + 1 == levels.size();
  }
  /// 1 / step, or 0 where the step is too small for a finite inverse: all weights are -m then.
  static float inverse_step(float step) {
    return step < 0x1p-120F && step > -0x1p-120F ? 0.0F : 1.0F / step;
  }
  static float min_value(std::uint16_t stored) { return tensor::half_to_float(stored); }
};

/// Finds the level nearest to v = (w + m) / s. Made once per run of weights.
class LevelRounder {
 public:
  explicit LevelRounder(const BlockGrid& grid);

  /// Levels are the integers from low() to high() when they are uniform; else a value above
  /// middles()[i] has a level over the i-th.
  bool is_uniform() const { return uniform_; }
  float low() const { return low_; }
  float high() const { return high_; }
  std::span<const float> middles() const { return {middles_, count_}; }
  float level(std::size_t code) const { return static_cast<float>(levels_[code]); }

  /// Index of the level. Ties between uniform levels go to the even one, else to the lower one.
  /// v is no NaN; infinities take the ends.
  std::uint8_t nearest(float v) const {
    if (uniform_) {
      v = v < low_ ? low_ : v;
      v = v > high_ ? high_ : v;
      // Adding 1.5 * 2^23 pushes the fraction out of the mantissa and rounds to even.
      constexpr float kMagic = 0x1.8p23F;
      return static_cast<std::uint8_t>(static_cast<int>(((v + kMagic) - kMagic) - low_));
    }
    std::uint8_t index = 0;
    for (std::size_t i = 0; i < count_; ++i) index += v > middles_[i];
    return index;
  }

 private:
  static constexpr std::size_t kMostMiddles = 15;
  std::span<const std::int8_t> levels_;
  bool uniform_;
  float low_;
  float high_;
  std::size_t count_ = 0;
  float middles_[kMostMiddles] = {};
};

/// The f16 nearest to `value`, clamped to the finite ones.
std::uint16_t nearest_half(float value) noexcept;

}  // namespace winnow::quant

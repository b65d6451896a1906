// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Makes the BlockGrid and the encoder of a codec from its layout.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "quant/block_grid.h"

namespace winnow::quant {

/// The levels in rising order, without repetitions, and the stored code of each.
template <class Levels>
struct LevelTable {
  static constexpr std::size_t kStored = Levels::kCodes;

  static constexpr std::array<std::uint8_t, kStored> sorted_codes() {
    std::array<std::uint8_t, kStored> codes{};
    for (std::size_t i = 0; i < kStored; ++i) {
      std::size_t at = i;
      for (; at > 0 && level(codes[at - 1]) > level(i); --at) codes[at] = codes[at - 1];
      codes[at] = static_cast<std::uint8_t>(i);
    }
    return codes;
  }
  static constexpr std::int8_t level(std::size_t stored) {
    return Levels::code(static_cast<std::uint8_t>(stored));
  }
  static constexpr std::size_t count() {
    const auto codes = sorted_codes();
    std::size_t distinct = 1;
    for (std::size_t i = 1; i < kStored; ++i) distinct += level(codes[i]) != level(codes[i - 1]);
    return distinct;
  }

  static constexpr std::size_t kCount = count();
  static constexpr auto kStoredCodes = [] {
    std::array<std::uint8_t, kCount> stored{};
    std::size_t filled = 0;
    for (const std::uint8_t code : sorted_codes()) {
      if (filled == 0 || level(code) != level(stored[filled - 1])) stored[filled++] = code;
    }
    return stored;
  }();
  static constexpr auto kLevels = [] {
    std::array<std::int8_t, kCount> levels{};
    for (std::size_t i = 0; i < kCount; ++i) levels[i] = level(kStoredCodes[i]);
    return levels;
  }();
  static constexpr bool kStoredRising = [] {
    for (std::size_t i = 0; i < kCount; ++i) {
      if (kStoredCodes[i] != i) return false;
    }
    return true;
  }();
};

/// The grid of a layout and its encoder. Layout gives kBlock, kBytes, Levels, kHasOffsets,
/// pack(BlockParameters, bytes); with sub-blocks kSubSize and kScaleHigh (integers 0..that, minima
/// too), or kScaleLow..kScaleHigh where they are signed, or kCodebook and odd integers up to
/// kScaleHigh; kUnit where the scale is an f16 times that, scale_value and nearest_scale where it
/// is no f16. In `pack` and in what `search(weights, importance)` returns, codes are as
/// stored, which need not be in the order of the levels.
template <class Layout, BlockParameters (*search)(const float*, const float*)>
struct BlockEncoder {
  using Table = LevelTable<typename Layout::Levels>;
  static constexpr bool kHasSubBlocks = requires { Layout::kSubSize; };
  static constexpr bool kHasCodebook = requires { Layout::kCodebook; };
  static constexpr bool kHasPowerScale = requires { Layout::nearest_scale(1.0F); };

  /// `Codec::encode`
  static void encode(const float* weights, std::size_t num_blocks, const float* importance,
                     std::byte* out) noexcept {
    for (std::size_t b = 0; b < num_blocks; ++b) {
      const std::size_t first = b * Layout::kBlock;
      Layout::pack(search(weights + first, importance == nullptr ? nullptr : importance + first),
                   out + b * Layout::kBytes);
    }
  }

  static void fit(const float* weights, const float* importance, BlockParameters& out) noexcept {
    out = search(weights, importance);
    if constexpr (!Table::kStoredRising) {
      for (std::size_t j = 0; j < Layout::kBlock; ++j) {
        const std::int8_t level = Table::level(out.codes[j]);
        const auto found = std::lower_bound(Table::kLevels.begin(), Table::kLevels.end(), level);
        out.codes[j] = static_cast<std::uint8_t>(found - Table::kLevels.begin());
      }
    }
  }

  static void pack(const BlockParameters& in, std::byte* block) noexcept {
    BlockParameters stored = in;
    if constexpr (!Table::kStoredRising) {
      for (std::size_t j = 0; j < Layout::kBlock; ++j) {
        stored.codes[j] = Table::kStoredCodes[in.codes[j]];
      }
    }
    Layout::pack(stored, block);
  }

  static float scale_value(std::uint16_t stored) noexcept {
    if constexpr (kHasPowerScale) {
      return Layout::scale_value(stored);
    } else {
      return unit() * tensor::half_to_float(stored);
    }
  }

  static std::uint16_t nearest_scale(float value) noexcept {
    if constexpr (kHasPowerScale) {
      return Layout::nearest_scale(value);
    } else {
      return nearest_half(value / unit());
    }
  }

  /// A power of two.
  static constexpr float unit() {
    if constexpr (requires { Layout::kUnit; }) {
      return Layout::kUnit;
    } else {
      return 1.0F;
    }
  }
  static constexpr std::size_t sub_size() {
    if constexpr (kHasSubBlocks) {
      return Layout::kSubSize;
    } else {
      return Layout::kBlock;
    }
  }
  static constexpr IntegerRange scale_range() {
    if constexpr (kHasCodebook) {
      return {1, Layout::kScaleHigh, 2};
    } else if constexpr (requires { Layout::kScaleLow; }) {
      return {static_cast<int>(Layout::kScaleLow), static_cast<int>(Layout::kScaleHigh)};
    } else if constexpr (kHasSubBlocks) {
      return {0, static_cast<int>(Layout::kScaleHigh)};
    } else {
      return {1, 1};
    }
  }
  static constexpr IntegerRange min_range() {
    return Layout::kHasOffsets ? scale_range() : IntegerRange{};
  }

  static constexpr const Codebook* codebook() {
    if constexpr (kHasCodebook) {
      return &Layout::kCodebook;
    } else {
      return nullptr;
    }
  }

  static constexpr BlockGrid kGrid = {.block_size = Layout::kBlock,
                                      .sub_size = sub_size(),
                                      .levels = Table::kLevels,
                                      .scales = scale_range(),
                                      .mins = min_range(),
                                      .codebook = codebook(),
                                      .has_half_scale = !kHasPowerScale,
                                      .scale_value = scale_value,
                                      .nearest_scale = nearest_scale,
                                      .fit = fit,
                                      .pack = pack};
};

}  // namespace winnow::quant

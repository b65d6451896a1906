// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What quantisers may rely on in every BlockGrid: packed parameters decode to exactly the numbers
// that the formula gives, and `fit` is the codec's own search.
#include "quant/block_grid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "base/rng.h"
#include "quant/codec.h"
#include "quant/codec_test_support.h"

namespace winnow::quant::block_grid_test {
namespace {

class EveryGrid : public testing::TestWithParam<const Codec*> {
 protected:
  const Codec& codec = *GetParam();
  const BlockGrid& grid = *GetParam()->grid;

  std::vector<std::byte> pack(const BlockParameters& block) const {
    std::vector<std::byte> bytes(codec.block_bytes, std::byte{0xa5});
    grid.pack(block, bytes.data());
    return bytes;
  }
  std::vector<float> decode(const std::vector<std::byte>& bytes) const {
    std::vector<float> weights(codec.block_size);
    codec.decode(bytes.data(), 1, weights.data());
    return weights;
  }
  /// The formula of block_grid.h.
  std::vector<float> by_formula(const BlockParameters& block) const {
    std::vector<float> weights(codec.block_size);
    for (std::size_t j = 0; j < weights.size(); ++j) {
      const std::size_t k = j / grid.sub_size;
      const float s = grid.scale_value(block.scale) * static_cast<float>(block.scales[k]);
      const float m = BlockGrid::min_value(block.min_scale) * static_cast<float>(block.mins[k]);
      weights[j] = s * static_cast<float>(grid.levels[block.codes[j]]);
      if (grid.has_mins()) weights[j] -= m;
    }
    return weights;
  }
  static int pick(Rng& rng, IntegerRange range) {
    const auto count = static_cast<std::uint64_t>((range.high - range.low) / range.step + 1);
    return range.low + range.step * static_cast<int>(rng.below(count));
  }
  /// Makes the codes of group g a point with the signs of `bits`.
  void set_point(std::size_t g, std::size_t point, unsigned bits, BlockParameters& block) const {
    const Codebook& book = *grid.codebook;
    std::int8_t magnitudes[kSignGroup];
    book.magnitudes_of(point, magnitudes);
    for (std::size_t i = 0; i < book.group; ++i) {
      const int level = (bits >> i) & 1U ? -magnitudes[i] : magnitudes[i];
      const auto found = std::lower_bound(grid.levels.begin(), grid.levels.end(), level);
      block.codes[g * book.group + i] = static_cast<std::uint8_t>(found - grid.levels.begin());
    }
  }
  void fill_with_points(Rng& rng, BlockParameters& block) const {
    const Codebook& book = *grid.codebook;
    unsigned signs = 0;
    for (std::size_t g = 0; g < grid.block_size / book.group; ++g) {
      if (g * book.group % kSignGroup == 0) {
        signs = static_cast<unsigned>(rng.below(1U << kSignGroup));
        if (book.even_signs && std::popcount(signs) % 2 == 1) signs ^= 1U;
      }
      set_point(g, rng.below(book.num_points), signs, block);
      signs >>= book.group;
    }
  }
  BlockParameters random_block(Rng& rng, float largest) const {
    BlockParameters block;
    const auto value = [&] { return largest * static_cast<float>(2 * rng.uniform() - 1); };
    block.scale = grid.nearest_scale(value());
    block.min_scale = nearest_half(value());
    for (std::size_t k = 0; k < grid.block_size / grid.sub_size; ++k) {
      block.scales[k] = static_cast<std::int8_t>(pick(rng, grid.scales));
      block.mins[k] = static_cast<std::int8_t>(pick(rng, grid.mins));
    }
    for (std::size_t j = 0; j < grid.block_size; ++j) {
      block.codes[j] = static_cast<std::uint8_t>(rng.below(grid.levels.size()));
    }
    if (grid.codebook != nullptr) fill_with_points(rng, block);
    return block;
  }
};
INSTANTIATE_TEST_SUITE_P(Registry, EveryGrid, testing::ValuesIn(integer_codecs()), codec_test_name);

TEST_P(EveryGrid, FitsTheBlock) {
  EXPECT_EQ(grid.block_size, codec.block_size);
  EXPECT_EQ(grid.block_size % grid.sub_size, 0U);
  EXPECT_LE(grid.block_size / grid.sub_size, BlockParameters::kMostSubBlocks);
  EXPECT_EQ(grid.has_mins(), codec.has_offsets);
  EXPECT_TRUE(std::is_sorted(grid.levels.begin(), grid.levels.end(), std::less_equal<>{}));
  // The levels are all that random bytes can stand for, but for -128 of Q8_0, which is left out.
  const std::vector<int> seen = grid_of(codec).codes;
  std::vector<int> levels(grid.levels.begin(), grid.levels.end());
  if (codec.name == "Q8_0") levels.insert(levels.begin(), -128);
  EXPECT_EQ(levels, seen);
}

TEST_P(EveryGrid, DecodesWhatItPacksToTheFormula) {
  Rng rng(1);
  for (const float largest : {1e-7F, 1e-3F, 1.0F, 65504.0F}) {
    for (int trial = 0; trial < 50; ++trial) {
      const BlockParameters block = random_block(rng, largest);
      ASSERT_EQ(decode(pack(block)), by_formula(block));
    }
  }
}

TEST_P(EveryGrid, PacksTheEndsOfEveryRange) {
  for (const float scale : {-65504.0F, -1.0F, 0.0F, 0x1p-24F, 65504.0F}) {
    for (const bool high : {false, true}) {
      BlockParameters block;
      block.scale = grid.nearest_scale(scale);
      block.min_scale = nearest_half(-scale);
      std::fill_n(block.scales, 16,
                  static_cast<std::int8_t>(high ? grid.scales.high : grid.scales.low));
      std::fill_n(block.mins, 16, static_cast<std::int8_t>(high ? grid.mins.high : grid.mins.low));
      std::fill_n(block.codes, grid.block_size,
                  static_cast<std::uint8_t>(high ? grid.levels.size() - 1 : 0));
      if (grid.codebook != nullptr) {
        const Codebook& book = *grid.codebook;
        for (std::size_t g = 0; g < grid.block_size / book.group; ++g) {
          set_point(g, high ? book.num_points - 1 : 0, high ? 0U : ~0U, block);
        }
      }
      EXPECT_EQ(decode(pack(block)), by_formula(block));
    }
  }
}

TEST(Codebooks, HaveNoPointTwice) {
  std::size_t books = 0;
  for (const Codec* codec : integer_codecs()) {
    const Codebook* book = codec->grid->codebook;
    if (book == nullptr) continue;
    ++books;
    std::set<std::vector<std::int8_t>> points;
    for (std::size_t p = 0; p < book->num_points; ++p) {
      std::vector<std::int8_t> point(book->group);
      book->magnitudes_of(p, point.data());
      EXPECT_TRUE(points.insert(point).second) << codec->name << ", point " << p;
      for (const std::int8_t m : point) {
        EXPECT_TRUE(std::count(book->magnitudes.begin(), book->magnitudes.end(), m)) << codec->name;
      }
    }
  }
  EXPECT_EQ(books, 5U);
}

TEST_P(EveryGrid, FitsAsTheEncoderDoes) {
  Rng rng(2);
  for (int trial = 0; trial < 20; ++trial) {
    std::vector<float> weights(codec.block_size);
    std::vector<float> importance(codec.block_size);
    for (float& w : weights) w = static_cast<float>(0.02 * rng.normal() + 0.01 * (trial % 3));
    for (float& w : importance) w = static_cast<float>(std::exp(rng.normal()));
    BlockParameters block;
    grid.fit(weights.data(), importance.data(), block);
    std::vector<std::byte> encoded(codec.block_bytes);
    codec.encode(weights.data(), 1, importance.data(), encoded.data());
    ASSERT_EQ(pack(block), encoded);
    ASSERT_EQ(decode(encoded), by_formula(block));
  }
}

TEST_P(EveryGrid, FindsTheNearestLevel) {
  Rng rng(3);
  const LevelRounder rounder(grid);
  const auto distance = [&](std::size_t i, float v) {
    return std::fabs(v - static_cast<float>(grid.levels[i]));
  };
  for (int trial = 0; trial < 1000; ++trial) {
    const auto v = static_cast<float>(1.3 * grid.levels.back() * (2 * rng.uniform() - 1));
    const std::size_t found = rounder.nearest(v);
    for (std::size_t i = 0; i < grid.levels.size(); ++i) {
      ASSERT_LE(distance(found, v), distance(i, v)) << v;
    }
  }
  EXPECT_EQ(rounder.nearest(-std::numeric_limits<float>::infinity()), 0U);
  EXPECT_EQ(rounder.nearest(std::numeric_limits<float>::infinity()), grid.levels.size() - 1);
}

TEST_P(EveryGrid, StoresTheNearestScale) {
  // f16 keeps 11 bits; the nearest power of two in ratio is at most sqrt(2) away.
  const double tolerance = grid.has_half_scale ? 0x1p-11 : std::sqrt(2.0) - 1;
  for (const float value : {1e-4F, 0.0371F, 1.0F, 1234.5F}) {
    EXPECT_NEAR(grid.scale_value(grid.nearest_scale(value)), value, 1.0001 * tolerance * value);
    if (grid.has_half_scale) {
      EXPECT_EQ(grid.scale_value(grid.nearest_scale(-value)),
                -grid.scale_value(grid.nearest_scale(value)));
    }
  }
  EXPECT_TRUE(std::isfinite(grid.scale_value(grid.nearest_scale(1e38F))));
}

TEST(FloatCodecs, HaveNoGrid) {
  for (const Codec* codec : all_codecs()) EXPECT_EQ(codec->grid == nullptr, codec->is_float());
}

}  // namespace
}  // namespace winnow::quant::block_grid_test

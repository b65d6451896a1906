// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The search for points of a codebook, against looking at all of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/rng.h"
#include "quant/block_grid.h"
#include "quant/codec.h"
#include "quant/codec_test_support.h"

namespace winnow::quant::codebook_test {
namespace {

class EveryCodebook : public testing::TestWithParam<const Codec*> {
 protected:
  const BlockGrid& grid = *GetParam()->grid;
  const Codebook& book = *grid.codebook;
  Rng rng{1};
  /// Of which 2.2, the largest of 32 Gaussian weights, is the largest magnitude.
  const float step = 2.2F / static_cast<float>(grid.levels.back());

  std::vector<float> gaussian(std::size_t count) {
    std::vector<float> values(count);
    for (float& v : values) v = static_cast<float>(rng.normal());
    return values;
  }
  double error(const std::vector<float>& target, const std::vector<float>& weights,
               const std::uint8_t* codes) const {
    double sum = 0;
    for (std::size_t i = 0; i < target.size(); ++i) {
      const double e = target[i] - double{step} * grid.levels[codes[i]];
      sum += weights[i] * e * e;
    }
    return sum;
  }
  std::size_t num_negative(const std::uint8_t* codes, std::size_t count) const {
    return static_cast<std::size_t>(std::count_if(
        codes, codes + count, [this](std::uint8_t code) { return grid.levels[code] < 0; }));
  }
  /// Over all points, signs as those of the target.
  double least_error(const std::vector<float>& target, const std::vector<float>& weights) const {
    double least = std::numeric_limits<double>::infinity();
    std::vector<std::int8_t> point(book.group);
    for (std::size_t p = 0; p < book.num_points; ++p) {
      book.magnitudes_of(p, point.data());
      double sum = 0;
      for (std::size_t i = 0; i < book.group; ++i) {
        const double e = std::fabs(target[i]) - double{step} * point[i];
        sum += weights[i] * e * e;
      }
      least = std::min(least, sum);
    }
    return least;
  }
};
INSTANTIATE_TEST_SUITE_P(Registry, EveryCodebook, testing::ValuesIn(codecs_of_kind(false)),
                         codec_test_name);

// Where all errors count alike the lists hold the nearest point but for rare ones: 0 to 9 of 400.
TEST_P(EveryCodebook, FindsTheNearestPoint) {
  constexpr int kTrials = 400;
  int found = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    const auto target = gaussian(book.group);
    const std::vector<float> weights(book.group, 1.0F);
    std::vector<std::uint8_t> codes(book.group);
    book.nearest(target.data(), weights.data(), step, SignParity::kAny, 1, codes.data());
    const double least = least_error(target, weights);
    const double reached = error(target, weights, codes.data());
    ASSERT_GE(reached, least * (1 - 1e-5));
    found += reached <= least * (1 + 1e-5);
  }
  RecordProperty("found", found);
  EXPECT_GE(found, kTrials * 95 / 100);
}

TEST_P(EveryCodebook, ComesCloseToTheNearestPointUnderUnequalWeights) {
  double reached = 0;
  double least = 0;
  for (int trial = 0; trial < 400; ++trial) {
    const auto target = gaussian(book.group);
    auto weights = gaussian(book.group);
    for (float& w : weights) w = std::exp(w);
    std::vector<std::uint8_t> codes(book.group);
    book.nearest(target.data(), weights.data(), step, SignParity::kAny, 1, codes.data());
    reached += error(target, weights, codes.data());
    least += least_error(target, weights);
  }
  RecordProperty("ratio", std::to_string(reached / least));
  EXPECT_LE(reached, 1.05 * least);
}

TEST_P(EveryCodebook, GivesItsChoicesBestFirstWithTheWantedNumberOfSigns) {
  constexpr std::size_t kCount = Codebook::kMostChoices;
  for (int trial = 0; trial < 100; ++trial) {
    const auto target = gaussian(book.group);
    const std::vector<float> weights(book.group, 1.0F);
    for (const SignParity parity : {SignParity::kAny, SignParity::kEven, SignParity::kOdd}) {
      std::vector<std::uint8_t> codes(kCount * book.group);
      book.nearest(target.data(), weights.data(), step, parity, kCount, codes.data());
      double before = 0;
      for (std::size_t c = 0; c < kCount; ++c) {
        const std::uint8_t* choice = codes.data() + c * book.group;
        const double now = error(target, weights, choice);
        EXPECT_GE(now, before * (1 - 1e-5));
        before = now;
        const bool odd = num_negative(choice, book.group) % 2 == 1;
        EXPECT_TRUE(parity == SignParity::kAny || odd == (parity == SignParity::kOdd));
      }
    }
  }
}

TEST_P(EveryCodebook, ChoosesWholeSignFieldsAsTheLayoutStoresThem) {
  for (int trial = 0; trial < 200; ++trial) {
    const auto target = gaussian(kSignGroup);
    std::uint8_t codes[kSignGroup];
    book.choose(target.data(), std::vector<float>(kSignGroup, 1.0F).data(), step, codes);
    const std::size_t negative = num_negative(codes, kSignGroup);
    if (book.even_signs) {
      EXPECT_EQ(negative % 2, 0U);
      continue;
    }
    EXPECT_EQ(negative, static_cast<std::size_t>(std::count_if(target.begin(), target.end(),
                                                               [](float t) { return t < 0; })));
  }
}

// A negative step turns all signs.
TEST_P(EveryCodebook, TakesNegativeSteps) {
  const auto target = gaussian(kSignGroup);
  const std::vector<float> weights(kSignGroup, 1.0F);
  std::uint8_t codes[kSignGroup];
  std::uint8_t mirrored[kSignGroup];
  book.choose(target.data(), weights.data(), step, codes);
  book.choose(target.data(), weights.data(), -step, mirrored);
  for (std::size_t i = 0; i < kSignGroup; ++i) {
    EXPECT_EQ(grid.levels[mirrored[i]], -grid.levels[codes[i]]);
  }
}

}  // namespace
}  // namespace winnow::quant::codebook_test

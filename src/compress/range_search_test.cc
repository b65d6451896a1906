// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/range_search.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/descent.h"
#include "compress/error_feedback.h"
#include "compress/quantizer_test_support.h"
#include "compress/test_workers.h"
#include "quant/codec_test_support.h"

namespace winnow::compress::range_search_test {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): the helpers beside this file

constexpr std::size_t kSize = 256;
constexpr std::size_t kRows = 20;

class EveryCodecRanges : public ::testing::TestWithParam<const quant::Codec*> {
 protected:
  /// sum of importance times squared error.
  double weighted_error(const CodedMatrix& coded) const {
    std::vector<float> decoded(kSize);
    double sum = 0;
    for (std::size_t r = 0; r < kRows; ++r) {
      coded.decode_row(r, decoded);
      for (std::size_t j = 0; j < kSize; ++j) {
        const double e = double{decoded[j]} - weights.row(r)[j];
        sum += importance[j] * e * e;
      }
    }
    return sum;
  }

  const quant::Codec& codec = *GetParam();
  testing::OwnWorkers pool{2};
  tensor::Matrix<float> weights = random_matrix(1, kRows, kSize);
  std::vector<float> importance = std::vector<float>(kSize, 1.0F);
};
// Codebooks keep their own search (ScaleSearch).
INSTANTIATE_TEST_SUITE_P(Registry, EveryCodecRanges,
                         ::testing::ValuesIn(quant::codecs_of_kind(/*scalar=*/true)),
                         quant::codec_test_name);

// The codec's own search has more freedom; ranges cannot be far behind on weights without outliers.
TEST_P(EveryCodecRanges, ClippedRangesComeNearTheEncoder) {
  CodedMatrix clipped(codec, kRows, kSize);
  round_in_clipped_ranges(weights.view(), importance, clipped, pool);
  CodedMatrix encoded(codec, kRows, kSize);
  round_to_nearest(weights.view(), importance, encoded, pool);
  EXPECT_LT(weighted_error(clipped), 1.5 * weighted_error(encoded));
}

TEST_P(EveryCodecRanges, ClippedRangesSurvivePacking) {
  CodedMatrix clipped(codec, kRows, kSize);
  round_in_clipped_ranges(weights.view(), importance, clipped, pool);
  const auto bytes = packed(clipped, codec);
  std::vector<float> expected(kSize);
  std::vector<float> decoded(kSize);
  for (std::size_t r = 0; r < kRows; ++r) {
    clipped.decode_row(r, expected);
    codec.decode(bytes.data() + r * bytes.size() / kRows, kSize / codec.block_size, decoded.data());
    EXPECT_EQ(decoded, expected);
  }
}

TEST_P(EveryCodecRanges, ZeroWeightsStayZero) {
  weights = tensor::Matrix<float>(kRows, kSize);
  CodedMatrix clipped(codec, kRows, kSize);
  round_in_clipped_ranges(weights.view(), importance, clipped, pool);
  EXPECT_EQ(weighted_error(clipped), 0);
}

TEST_P(EveryCodecRanges, OutputScalesNeverRaiseTheOutputError) {
  if (!has_one_scale(*codec.grid)) return;
  const Hessian hessian = correlated_hessian(2, 600, kSize);
  const DampedHessian damped = damp(hessian, 0.01, codec.block_size, ColumnOrder::kStorage);
  CodedMatrix coded(codec, kRows, kSize);
  round_to_nearest(weights.view(), importance, coded, pool);
  const double before = loss_by_definition(weights.view(), coded, damped.h.view());
  search_output_scales(weights.view(), damped.h.view(), coded, pool);
  EXPECT_LT(loss_by_definition(weights.view(), coded, damped.h.view()), before);
}

/// One outlier in every sub-block of columns that matter little.
TEST(ClippedRanges, GiveUpAnOutlierThatDoesNotMatter) {
  const quant::Codec& codec = *quant::find_codec("Q4_K");
  testing::OwnWorkers pool(1);
  auto weights = random_matrix(1, kRows, kSize);
  std::vector<float> importance(kSize, 1.0F);
  for (std::size_t j = 0; j < kSize; j += 32) {
    importance[j] = 1e-4F;
    for (std::size_t r = 0; r < kRows; ++r) weights.row(r)[j] = 0.1F;  // 5 sigma
  }
  CodedMatrix clipped(codec, kRows, kSize);
  round_in_clipped_ranges(weights.view(), importance, clipped, pool);
  std::vector<float> decoded(kSize);
  double outliers = 0;
  for (std::size_t r = 0; r < kRows; ++r) {
    clipped.decode_row(r, decoded);
    for (std::size_t j = 0; j < kSize; j += 32) outliers += decoded[j];
  }
  EXPECT_LT(outliers / (kRows * kSize / 32.0), 0.07);  // clipped by nearly the smallest factor
}

// By hand: levels 0 .. 15 over [-0.5, 1], s = 1.5 / 15 = 0.1, m = 0.5, so that all are hit.
TEST(ClippedRanges, SpreadTheWholeRangeWhereEveryWeightLiesOnIt) {
  const quant::Codec& codec = *quant::find_codec("Q4_1");
  testing::OwnWorkers pool(1);
  tensor::Matrix<float> weights(1, 32);
  for (std::size_t j = 0; j < 32; ++j) {
    weights.row(0)[j] = -0.5F + 0.1F * static_cast<float>(j % 16);
  }
  CodedMatrix coded(codec, 1, 32);
  round_in_clipped_ranges(weights.view(), std::vector<float>(32, 1.0F), coded, pool);
  for (std::size_t j = 0; j < 32; ++j) EXPECT_EQ(coded.codes(0)[j], j % 16);
  EXPECT_NEAR(coded.step(0, 0), 0.1, 0.1 * 0x1p-11);
  EXPECT_NEAR(coded.offset(0, 0), 0.5, 0.5 * 0x1p-11);
}

}  // namespace
}  // namespace winnow::compress::range_search_test

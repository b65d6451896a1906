// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/channel_scales.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "compress/quantizer_methods.h"
#include "compress/quantizer_test_support.h"
#include "compress/test_workers.h"

namespace winnow::compress::channel_scales_test {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): the helpers beside this file

constexpr std::size_t kSize = 64;
constexpr std::size_t kRows = 24;

class EveryFamily : public ::testing::TestWithParam<ScaleFamily> {
 protected:
  ChannelScales search(const Hessian& of_inputs, const HessianQuantizerOptions& options) {
    const TrialMatrix matrix{weights.view(), &codec, &of_inputs};
    return search_channel_scales(std::span(&matrix, 1), input_magnitudes(of_inputs), {}, GetParam(),
                                 options, 0, pool);
  }
  static HessianQuantizerOptions rtn() { return find_quantizer_method("rtn")->options; }

  const quant::Codec& codec = *quant::find_codec("Q4_0");
  testing::OwnWorkers pool{1};
  tensor::Matrix<float> weights = random_matrix(1, kRows, kSize);
  Hessian hessian = correlated_hessian(2, 500, kSize);
};
INSTANTIATE_TEST_SUITE_P(Families, EveryFamily,
                         ::testing::Values(ScaleFamily::kAwq, ScaleFamily::kSmoothQuantPlus,
                                           ScaleFamily::kExponentShift));

TEST_P(EveryFamily, LosesLessWhereChannelsDifferInEnergy) {
  const ChannelScales found = search(hessian, rtn());
  EXPECT_LT(found.held_out_loss, found.unscaled_loss);
  EXPECT_EQ(found.scales.size(), kSize);
  const auto [low, high] = std::minmax_element(found.scales.begin(), found.scales.end());
  EXPECT_GT(*low, 0.0F);
  const bool rounded = GetParam() == ScaleFamily::kExponentShift;  // each by up to sqrt(2)
  EXPECT_NEAR(std::log2(*low * *high), 0.0F, rounded ? 1.0F : 2e-5F);
}

TEST_P(EveryFamily, IsNeverWorseThanNoScales) {
  weights = random_matrix(3, kRows, kSize);
  for (const auto& method : quantizer_methods()) {
    const ChannelScales found = search(identity_hessian(kSize), method.options);
    EXPECT_LE(found.held_out_loss, found.unscaled_loss) << method.name;
  }
}

TEST_P(EveryFamily, AcceptsChannelsThatAreNeverUsed) {
  for (std::size_t r = 0; r < kRows; ++r) weights.row(r)[5] = 0.0F;
  Hessian silent(kSize);
  tensor::Matrix<float> x = random_matrix(4, 100, kSize, 1.0);
  for (std::size_t t = 0; t < x.rows(); ++t) x.row(t)[9] = 0.0F;
  silent.add(x.view(), {}, pool);
  for (const float s : search(silent, rtn()).scales) {
    EXPECT_TRUE(std::isfinite(s));
    EXPECT_GT(s, 0.0F);
  }
}

TEST(ChannelScales, KeepTheProductWithTheDividedInputs) {
  const auto weights = random_matrix(1, kRows, kSize);
  const auto x = random_matrix(2, 1, kSize, 1.0);
  std::vector<float> scales(kSize);
  for (std::size_t j = 0; j < kSize; ++j) scales[j] = 0.3F + 0.1F * static_cast<float>(j);
  const auto scaled = scaled_columns(weights.view(), scales);
  for (std::size_t r = 0; r < kRows; ++r) {
    double plain = 0;
    double divided = 0;
    double terms = 0;
    for (std::size_t j = 0; j < kSize; ++j) {
      plain += double{weights.row(r)[j]} * x.row(0)[j];
      divided += double{scaled.row(r)[j]} * (double{x.row(0)[j]} / scales[j]);
      terms += std::fabs(double{weights.row(r)[j]} * x.row(0)[j]);
    }
    EXPECT_NEAR(plain, divided, 0x1p-24 * terms);  // each scaled weight is rounded once
  }
}

}  // namespace
}  // namespace winnow::compress::channel_scales_test

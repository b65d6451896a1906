// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/hessian_quantizer.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "base/error.h"
#include "compress/quantizer_test_support.h"
#include "compress/test_workers.h"
#include "quant/codec_test_support.h"

namespace winnow::compress::hessian_quantizer_test {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): the helpers beside this file

constexpr std::size_t kSize = 256;
constexpr std::size_t kRows = 40;

std::vector<std::byte> room_for(const quant::Codec& codec, std::size_t rows = kRows) {
  return std::vector<std::byte>(rows * (kSize / codec.block_size) * codec.block_bytes);
}

double held_out_loss(const quant::Codec& codec, const std::vector<std::byte>& bytes,
                     ConstMatrix weights, const Hessian& hessian) {
  std::vector<float> decoded(weights.rows * weights.cols);
  codec.decode(bytes.data(), decoded.size() / codec.block_size, decoded.data());
  double loss = 0;
  for (std::size_t r = 0; r < weights.rows; ++r) {
    for (std::size_t i = 0; i < weights.cols; ++i) {
      const double error = double{decoded[r * weights.cols + i]} - weights.row(r)[i];
      for (std::size_t j = 0; j < weights.cols; ++j) {
        loss +=
            error * hessian.at(i, j) * (double{decoded[r * weights.cols + j]} - weights.row(r)[j]);
      }
    }
  }
  return loss / hessian.tokens();
}

class EveryQuantizer : public ::testing::TestWithParam<const quant::Codec*> {
 protected:
  const quant::Codec& codec = *GetParam();
  testing::OwnWorkers pool{2};
  tensor::Matrix<float> weights = random_matrix(1, kRows, kSize);
  Hessian hessian = correlated_hessian(2, 1500, kSize);
  Hessian held_out = correlated_hessian(3, 700, kSize);
};
INSTANTIATE_TEST_SUITE_P(Registry, EveryQuantizer, ::testing::ValuesIn(codecs_with_grid()),
                         quant::codec_test_name);

TEST_P(EveryQuantizer, BeatsTheEncoderOnTextThatTookNoPart) {
  auto bytes = room_for(codec);
  const QuantizerReport report =
      quantize_matrix(weights.view(), codec, hessian, &held_out, {}, pool, bytes);
  ASSERT_EQ(report.candidates.size(), 3U);
  EXPECT_EQ(report.candidates[0].damping, 0.0);
  EXPECT_LT(report.chosen().held_out_loss, 0.95 * report.candidates[0].held_out_loss);
  const double direct = held_out_loss(codec, bytes, weights.view(), held_out);
  EXPECT_NEAR(report.chosen().held_out_loss, direct, 1e-4 * direct);
}

TEST_P(EveryQuantizer, FallsBackToTheEncoderWhereFeedbackMisleads) {
  // The held-out inputs have the opposite correlations: what was traded away comes back doubled.
  Hessian opposite(kSize);
  tensor::Matrix<float> x = random_matrix(4, 700, kSize, 1.0);
  for (std::size_t t = 0; t < x.rows(); ++t) {
    for (std::size_t j = 1; j < kSize; ++j)
      x.row(t)[j] = -0.8F * x.row(t)[j - 1] + 0.6F * x.row(t)[j];
  }
  opposite.add(x.view(), {}, pool);
  auto bytes = room_for(codec);
  const QuantizerReport report =
      quantize_matrix(weights.view(), codec, hessian, &opposite, {}, pool, bytes);
  EXPECT_EQ(report.winner, 0U);
  auto encoded = room_for(codec);
  const auto importance = importance_of(hessian);
  for (std::size_t r = 0; r < kRows; ++r) {
    codec.encode(weights.row(r).data(), kSize / codec.block_size, importance.data(),
                 encoded.data() + r * (encoded.size() / kRows));
  }
  EXPECT_EQ(bytes, encoded);
}

TEST_P(EveryQuantizer, WritesTheSameBytesWithAnyNumberOfThreads) {
  testing::OwnWorkers one(1);
  testing::OwnWorkers three(3);
  auto first = room_for(codec);
  auto second = room_for(codec);
  quantize_matrix(weights.view(), codec, hessian, &held_out, {}, one, first);
  quantize_matrix(weights.view(), codec, hessian, &held_out, {}, three, second);
  EXPECT_EQ(first, second);
}

TEST_P(EveryQuantizer, QuantisesAnExpertThatSawNoToken) {
  HessianQuantizerOptions options;
  options.guard = false;
  for (const Hessian& seen : {Hessian(kSize), shrunk_towards(Hessian(kSize), hessian, 0.5 * kSize),
                              correlated_hessian(5, 3, kSize)}) {
    auto bytes = room_for(codec);
    const QuantizerReport report =
        quantize_matrix(weights.view(), codec, seen, nullptr, options, pool, bytes);
    EXPECT_TRUE(std::isfinite(report.chosen().loss));
    std::vector<float> decoded(kRows * kSize);
    codec.decode(bytes.data(), decoded.size() / codec.block_size, decoded.data());
    double error = 0;
    double energy = 0;
    for (std::size_t i = 0; i < decoded.size(); ++i) {
      ASSERT_TRUE(std::isfinite(decoded[i]));
      error += std::pow(double{decoded[i]} - weights.flat()[i], 2);
      energy += std::pow(double{weights.flat()[i]}, 2);
    }
    EXPECT_LT(error, energy);  // still the weights, not noise
  }
}

TEST_P(EveryQuantizer, TakesTheLayersResultForAnExpertWithoutTokens) {
  HessianQuantizerOptions options;
  options.guard = false;
  auto alone = room_for(codec);
  auto of_layer = room_for(codec);
  // A power of two, so that the layer's matrix is scaled exactly.
  const double tokens = hessian.tokens() / 4;
  quantize_matrix(weights.view(), codec, shrunk_towards(Hessian(kSize), hessian, tokens), nullptr,
                  options, pool, alone);
  quantize_matrix(weights.view(), codec, hessian, nullptr, options, pool, of_layer);
  EXPECT_EQ(alone, of_layer);
}

TEST_P(EveryQuantizer, QuantisesOneRowAndZeros) {
  tensor::Matrix<float> zeros(1, kSize);
  auto bytes = room_for(codec, 1);
  const QuantizerReport report =
      quantize_matrix(zeros.view(), codec, hessian, &held_out, {}, pool, bytes);
  EXPECT_EQ(report.chosen().loss, 0.0);
  EXPECT_EQ(report.winner, 0U);  // ties go to the encoder
}

TEST(HessianQuantizer, LosesLessWithMoreBits) {
  testing::OwnWorkers pool(2);
  const auto weights = random_matrix(1, kRows, kSize);
  const Hessian hessian = correlated_hessian(2, 1500, kSize);
  double before = std::numeric_limits<double>::infinity();
  for (const char* name : {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0"}) {
    const quant::Codec& codec = *quant::find_codec(name);
    auto bytes = room_for(codec);
    const double loss =
        quantize_matrix(weights.view(), codec, hessian, nullptr, {}, pool, bytes).chosen().loss;
    EXPECT_LT(loss, before) << name;
    before = loss;
  }
}

TEST(HessianQuantizer, EncodesFloatCodecsAsTheyAre) {
  testing::OwnWorkers pool(1);
  const auto weights = random_matrix(1, kRows, kSize);
  const quant::Codec& codec = *quant::find_codec("F32");
  auto bytes = room_for(codec);
  const QuantizerReport report = quantize_matrix(
      weights.view(), codec, correlated_hessian(2, 300, kSize), nullptr, {}, pool, bytes);
  EXPECT_EQ(report.chosen().loss, 0.0);
}

TEST(HessianQuantizer, NamesAWeightThatIsNotFinite) {
  testing::OwnWorkers pool(1);
  auto weights = random_matrix(1, kRows, kSize);
  weights.row(7)[33] = std::numeric_limits<float>::infinity();
  const quant::Codec& codec = *quant::find_codec("Q4_K");
  auto bytes = room_for(codec);
  try {
    quantize_matrix(weights.view(), codec, Hessian(kSize), nullptr, {}, pool, bytes);
    FAIL() << "accepted infinity";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadData);
    EXPECT_NE(std::string(error.what()).find("weight 33 of row 7"), std::string::npos);
  }
}

}  // namespace
}  // namespace winnow::compress::hessian_quantizer_test

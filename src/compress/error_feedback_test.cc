// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/error_feedback.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <fstream>
#include <limits>

#include "base/json.h"
#include "compress/descent.h"
#include "compress/quantizer_test_support.h"
#include "compress/test_workers.h"
#include "quant/codec_test_support.h"

namespace winnow::compress::error_feedback_test {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): the helpers beside this file

constexpr std::size_t kSize = 512;  // two super-blocks
constexpr std::size_t kRows = 19;   // a whole tile and part of one

class EveryGridCodec : public ::testing::TestWithParam<const quant::Codec*> {
 protected:
  const quant::Codec& codec = *GetParam();
  testing::OwnWorkers pool{2};
  tensor::Matrix<float> weights = random_matrix(1, kRows, kSize);
  std::vector<float> ones = std::vector<float>(kSize, 1.0F);
};
INSTANTIATE_TEST_SUITE_P(Registry, EveryGridCodec, ::testing::ValuesIn(codecs_with_grid()),
                         quant::codec_test_name);

TEST_P(EveryGridCodec, RoundsPlainlyWhenInputsAreIndependentAndEqual) {
  const DampedHessian damped =
      damp(identity_hessian(kSize), 0.01, codec.block_size, ColumnOrder::kByImportance,
           columns_coded_together(*codec.grid));
  CodedMatrix coded(codec, kRows, kSize);
  round_with_feedback(weights.view(), damped, damped.conditional, BlockScales::kSearch, coded,
                      pool);
  CodedMatrix plain(codec, kRows, kSize);
  round_to_nearest(weights.view(), ones, plain, pool);
  std::vector<std::byte> encoded(packed(coded, codec).size());
  codec.encode(weights.flat().data(), kRows * kSize / codec.block_size, nullptr, encoded.data());
  EXPECT_EQ(packed(plain, codec), encoded);
  EXPECT_EQ(packed(coded, codec), encoded);
}

TEST_P(EveryGridCodec, AccumulatesTheLossOfTheDampedHessian) {
  const Hessian hessian = correlated_hessian(2, 600, kSize);
  for (const ColumnOrder order : {ColumnOrder::kStorage, ColumnOrder::kByImportance}) {
    const DampedHessian damped =
        damp(hessian, 0.01, codec.block_size, order, columns_coded_together(*codec.grid));
    CodedMatrix coded(codec, kRows, kSize);
    const double accumulated = round_with_feedback(weights.view(), damped, damped.conditional,
                                                   BlockScales::kSearch, coded, pool);
    const double direct = loss_by_definition(weights.view(), coded, damped.h.view());
    EXPECT_NEAR(accumulated, direct, 1e-4 * direct);
  }
}

TEST_P(EveryGridCodec, LosesLessThanPlainRoundingOnItsHessian) {
  const Hessian hessian = correlated_hessian(2, 600, kSize);
  const DampedHessian damped = damp(hessian, 0.01, codec.block_size, ColumnOrder::kByImportance,
                                    columns_coded_together(*codec.grid));
  CodedMatrix coded(codec, kRows, kSize);
  round_to_nearest(weights.view(), ones, coded, pool);
  const double plain = loss_by_definition(weights.view(), coded, damped.h.view());
  round_with_feedback(weights.view(), damped, damped.conditional, BlockScales::kKeep, coded, pool);
  EXPECT_LT(loss_by_definition(weights.view(), coded, damped.h.view()), plain);
}

// Of one block: the searched scales are among those tried, and nothing follows.
TEST_P(EveryGridCodec, NeighboursOfTheScalesDoNotLoseMore) {
  const std::size_t size = codec.block_size;
  weights = random_matrix(1, kRows, size);
  const Hessian hessian = correlated_hessian(2, 600, size);
  const DampedHessian damped =
      damp(hessian, 0.01, size, ColumnOrder::kByImportance, columns_coded_together(*codec.grid));
  CodedMatrix coded(codec, kRows, size);
  const double searched = round_with_feedback(weights.view(), damped, damped.conditional,
                                              BlockScales::kSearch, coded, pool);
  const double around = round_with_feedback(weights.view(), damped, damped.conditional,
                                            BlockScales::kSearchAround, coded, pool);
  EXPECT_LE(around, searched);
  EXPECT_NEAR(around, loss_by_definition(weights.view(), coded, damped.h.view()), 1e-4 * around);
  if (codec.name == "Q4_0" || codec.name == "Q2_K") {
    EXPECT_LT(around, 0.999 * searched);
  }
}

TEST_P(EveryGridCodec, DecodesFromItsBytesWhatItMeasured) {
  const Hessian hessian = correlated_hessian(3, 200, kSize);
  const DampedHessian damped = damp(hessian, 0.01, codec.block_size, ColumnOrder::kByImportance,
                                    columns_coded_together(*codec.grid));
  for (const float factor : {1.0F, 1e-6F, 1e14F}) {  // f16 scales near zero, and clamped ones
    for (float& w : weights.flat()) w *= factor;
    CodedMatrix coded(codec, kRows, kSize);
    round_with_feedback(weights.view(), damped, damped.conditional, BlockScales::kSearch, coded,
                        pool);
    const auto bytes = packed(coded, codec);
    std::vector<float> decoded(kRows * kSize);
    codec.decode(bytes.data(), decoded.size() / codec.block_size, decoded.data());
    std::vector<float> row(kSize);
    for (std::size_t r = 0; r < kRows; ++r) {
      coded.decode_row(r, row);
      for (std::size_t j = 0; j < kSize; ++j) {
        ASSERT_TRUE(std::isfinite(row[j]));
        ASSERT_EQ(decoded[r * kSize + j], row[j]);
      }
    }
  }
}

// ---- Small enough to know the best answer: rows of 8 weights with 4 levels ----

struct SmallProblem {
  static constexpr std::size_t kLive = 8;
  std::array<float, kLive> weights;
  double h[kLive][kLive];

  double loss(const std::array<float, kLive>& rounded) const {
    double sum = 0;
    for (std::size_t i = 0; i < kLive; ++i) {
      for (std::size_t j = 0; j < kLive; ++j) {
        sum += (rounded[i] - weights[i]) * h[i][j] * (rounded[j] - weights[j]);
      }
    }
    return sum;
  }
};

/// Blocks of 8 weights and levels 0..3, otherwise as Q4_1.
quant::BlockGrid small_grid() {
  static constexpr std::int8_t kLevels[] = {0, 1, 2, 3};
  quant::BlockGrid grid = *quant::find_codec("Q4_1")->grid;
  grid.block_size = grid.sub_size = SmallProblem::kLive;
  grid.levels = kLevels;
  return grid;
}

double best_loss(const SmallProblem& problem) {
  double best = std::numeric_limits<double>::infinity();
  for (unsigned codes = 0; codes < 1U << (2 * SmallProblem::kLive); ++codes) {
    std::array<float, SmallProblem::kLive> rounded;
    for (std::size_t j = 0; j < rounded.size(); ++j) {
      rounded[j] = static_cast<float>((codes >> (2 * j)) & 3U);
    }
    best = std::min(best, problem.loss(rounded));
  }
  return best;
}

struct SmallResult {
  double nearest = 0;
  double feedback = 0;
  double descended = 0;
  double chained = 0;  // with chains of codes
  double best = 0;
};

SmallResult solve(std::uint64_t seed) {
  constexpr std::size_t kLive = SmallProblem::kLive;
  const quant::BlockGrid grid = small_grid();
  quant::Codec codec = *quant::find_codec("Q4_1");
  codec.block_size = kLive;
  codec.grid = &grid;
  testing::OwnWorkers pool(1);
  tensor::Matrix<float> weights(1, kLive);
  Rng rng(seed);
  for (float& w : weights.flat()) w = static_cast<float>(3 * rng.uniform());
  const Hessian hessian = correlated_hessian(seed + 1000, 64, kLive);
  const DampedHessian damped = damp(hessian, 1e-6, kLive, ColumnOrder::kByImportance);
  SmallProblem problem{};
  for (std::size_t i = 0; i < kLive; ++i) {
    problem.weights[i] = weights.row(0)[i];
    for (std::size_t j = 0; j < kLive; ++j) problem.h[i][j] = damped.h.row(i)[j];
  }
  CodedMatrix coded(codec, 1, kLive);
  quant::BlockParameters unit;
  unit.scale = quant::nearest_half(1.0F);
  unit.scales[0] = unit.mins[0] = 1;
  coded.set_block(0, 0, unit);
  SmallResult result;
  std::array<float, kLive> nearest;
  for (std::size_t j = 0; j < kLive; ++j) nearest[j] = std::nearbyint(problem.weights[j]);
  result.nearest = problem.loss(nearest);
  round_with_feedback(weights.view(), damped, damped.conditional, BlockScales::kKeep, coded, pool);
  result.feedback = loss_by_definition(weights.view(), coded, damped.h.view());
  DescentOptions codes_only{.code_sweeps = 8,
                            .block_sweeps = 0,
                            .integers = false,
                            .block_scales = false,
                            .chain_sweeps = 0};
  descend(weights.view(), damped.h.view(), codes_only, coded, pool);
  result.descended = loss_by_definition(weights.view(), coded, damped.h.view());
  codes_only.chain_sweeps = 8;
  descend(weights.view(), damped.h.view(), codes_only, coded, pool);
  result.chained = loss_by_definition(weights.view(), coded, damped.h.view());
  result.best = best_loss(problem);
  return result;
}

// Feedback is a greedy walk with exact look-back; over problems it comes close to the best of all
// 4^8 roundings, descent from there closer still, and with chains of codes to within 5 %.
TEST(ErrorFeedback, ComesCloseToTheBestOfAllRoundings) {
  constexpr int kProblems = 200;
  SmallResult sum;
  for (std::uint64_t seed = 0; seed < kProblems; ++seed) {
    const SmallResult one = solve(seed);
    ASSERT_GE(one.feedback, one.best * (1 - 1e-6));
    ASSERT_LE(one.descended, one.feedback * (1 + 1e-6));
    sum.nearest += one.nearest / one.best;
    sum.feedback += one.feedback / one.best;
    sum.descended += one.descended / one.best;
    sum.chained += one.chained / one.best;
  }
  RecordProperty("nearest", std::to_string(sum.nearest / kProblems));
  RecordProperty("feedback", std::to_string(sum.feedback / kProblems));
  RecordProperty("descended", std::to_string(sum.descended / kProblems));
  RecordProperty("chained", std::to_string(sum.chained / kProblems));
  EXPECT_LT(sum.feedback, sum.nearest);
  EXPECT_LT(sum.descended, sum.feedback);
  EXPECT_LT(sum.chained / kProblems, 1.05);
}

// testdata/quantise/feedback.json: computed by tests/oracles/gptq_numpy.py from the formulas, in
// f64 and with the inverse taken anew for each column instead of factored once.
TEST(ErrorFeedback, AgreesWithTheFormulasInNumpy) {
  std::ifstream file(std::string(WINNOW_SOURCE_DIR) + "/testdata/quantise/feedback.json");
  const Json golden = Json::parse(file);
  const std::size_t rows = golden["rows"];
  const std::size_t size = golden["size"];
  const quant::Codec& codec = *quant::find_codec("Q4_0");
  tensor::Matrix<float> weights(rows, size);
  tensor::Matrix<float> inputs(golden["tokens"], size);
  const auto w = golden["weights"].get<std::vector<float>>();
  const auto x = golden["inputs"].get<std::vector<float>>();
  std::copy(w.begin(), w.end(), weights.flat().begin());
  std::copy(x.begin(), x.end(), inputs.flat().begin());
  testing::OwnWorkers pool(1);
  Hessian hessian(size);
  hessian.add(inputs.view(), {}, pool);
  const DampedHessian damped =
      damp(hessian, golden["damping"], codec.block_size, ColumnOrder::kStorage);
  CodedMatrix coded(codec, rows, size);
  const auto scales = golden["scales"].get<std::vector<float>>();  // [rows, blocks], f16 values
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t b = 0; b < coded.blocks_per_row(); ++b) {
      quant::BlockParameters block;
      block.scale = quant::nearest_half(scales[r * coded.blocks_per_row() + b]);
      block.scales[0] = 1;
      coded.set_block(r, b, block);
    }
  }
  const double loss = round_with_feedback(weights.view(), damped, damped.conditional,
                                          BlockScales::kKeep, coded, pool);
  const auto levels = golden["levels"].get<std::vector<int>>();
  for (std::size_t i = 0; i < levels.size(); ++i) {
    ASSERT_EQ(codec.grid->levels[coded.codes(i / size)[i % size]], levels[i]) << "weight " << i;
  }
  // f32 sums of `size` terms, each of relative error size * 2^-24 at most.
  const double expected = golden["loss"];
  EXPECT_NEAR(loss, expected, 1e-4 * expected);
}

}  // namespace
}  // namespace winnow::compress::error_feedback_test

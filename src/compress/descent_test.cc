// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/descent.h"

#include <gtest/gtest.h>

#include "compress/error_feedback.h"
#include "compress/quantizer_test_support.h"
#include "compress/test_workers.h"
#include "quant/codec_test_support.h"

namespace winnow::compress::descent_test {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): the helpers beside this file

constexpr std::size_t kSize = 512;
constexpr std::size_t kRows = 18;

/// A matrix rounded with feedback, and the state of its rows.
class EveryDescent : public ::testing::TestWithParam<const quant::Codec*> {
 protected:
  EveryDescent() {
    round_with_feedback(weights.view(), damped, damped.conditional, BlockScales::kSearch, coded,
                        pool);
  }

  double loss() const { return loss_by_definition(weights.view(), coded, h()); }
  ConstMatrix h() const { return damped.h.view(); }

  /// Values and gradients of all rows, computed anew.
  std::vector<RowState> states() {
    values = tensor::Matrix<float>(kRows, kSize);
    gradients = tensor::Matrix<float>(kRows, kSize);
    tensor::Matrix<float> errors(kRows, kSize);
    std::vector<RowState> result;
    for (std::size_t r = 0; r < kRows; ++r) {
      coded.decode_row(r, values.row(r));
      for (std::size_t j = 0; j < kSize; ++j) {
        errors.row(r)[j] = values.row(r)[j] - weights.row(r)[j];
      }
      result.push_back({&testing::best_kernels(), r, values.row(r), gradients.row(r)});
    }
    product(testing::best_kernels(), errors.view(), h(), gradients.view());
    return result;
  }

  /// What a step claims to have changed is what the loss changed by, and it fell or stayed.
  void expect_honest(double before, double claimed) {
    const double after = loss();
    EXPECT_LE(claimed, 0.0);
    EXPECT_LE(after, before * (1 + 1e-6));  // f32 rounding of gradients
    EXPECT_NEAR(after, before + claimed, 1e-4 * before);
  }

  /// Values and gradients kept while stepping equal those computed anew.
  void expect_consistent(const std::vector<RowState>& stepped) {
    std::vector<std::vector<float>> kept_values;
    std::vector<std::vector<float>> kept_gradients;
    for (const RowState& state : stepped) {
      kept_values.emplace_back(state.values.begin(), state.values.end());
      kept_gradients.emplace_back(state.gradient.begin(), state.gradient.end());
    }
    const std::vector<RowState> anew = states();
    float largest = 0;
    for (const float g : gradients.flat()) largest = std::max(largest, std::fabs(g));
    for (std::size_t r = 0; r < anew.size(); ++r) {
      for (std::size_t j = 0; j < kSize; ++j) {
        ASSERT_EQ(kept_values[r][j], anew[r].values[j]);
        // Sums of 512 products; cancellation leaves them small beside their terms.
        ASSERT_NEAR(kept_gradients[r][j], anew[r].gradient[j], 1e-3F * largest);
      }
    }
  }

  const quant::Codec& codec = *GetParam();
  testing::OwnWorkers pool{1};
  tensor::Matrix<float> weights = random_matrix(1, kRows, kSize);
  DampedHessian damped = damp(correlated_hessian(2, 600, kSize), 0.01, codec.block_size,
                              ColumnOrder::kByImportance, columns_coded_together(*codec.grid));
  CodedMatrix coded{codec, kRows, kSize};
  tensor::Matrix<float> values;
  tensor::Matrix<float> gradients;
  int improving = 0;  // moves that were missed
};
INSTANTIATE_TEST_SUITE_P(Registry, EveryDescent, ::testing::ValuesIn(codecs_with_grid()),
                         quant::codec_test_name);

TEST_P(EveryDescent, MovesCodesOnlyDownhill) {
  const double before = loss();
  std::vector<RowState> rows = states();
  double claimed = 0;
  for (RowState& row : rows) claimed += sweep_codes(h(), row, coded);
  EXPECT_LT(claimed, 0.0);
  expect_honest(before, claimed);
  expect_consistent(rows);
}

/// Where single codes can be moved; elsewhere whole points are (codebook_rounder_test.cc).
class EveryScalarDescent : public EveryDescent {};
INSTANTIATE_TEST_SUITE_P(Registry, EveryScalarDescent,
                         ::testing::ValuesIn(quant::codecs_of_kind(/*scalar=*/true)),
                         quant::codec_test_name);

TEST_P(EveryScalarDescent, FindsAPointThatNoSingleCodeImproves) {
  std::vector<RowState> rows = states();
  for (RowState& row : rows) {
    int sweeps = 0;
    while (sweep_codes(h(), row, coded) != 0) ASSERT_LT(++sweeps, 200);
  }
  const double settled = loss();
  for (const std::size_t j : {0U, 100U, 511U}) {
    for (const int move : {-1, 1}) {
      const std::uint8_t code = coded.codes(3)[j];
      const int moved = code + move;
      if (moved < 0 || moved >= static_cast<int>(coded.grid().levels.size())) continue;
      coded.codes(3)[j] = static_cast<std::uint8_t>(moved);
      EXPECT_GE(loss(), settled * (1 - 1e-6));
      coded.codes(3)[j] = code;
    }
  }
}

TEST_P(EveryScalarDescent, MovesChainsDownhillWhereSingleCodesAreStuck) {
  std::vector<RowState> rows = states();
  for (RowState& row : rows) {
    while (sweep_codes(h(), row, coded) != 0) continue;
  }
  const double before = loss();
  rows = states();
  double claimed = 0;
  for (RowState& row : rows) claimed += sweep_chains(h(), row, coded);
  EXPECT_LT(claimed, -1e-4 * before);
  expect_honest(before, claimed);
  expect_consistent(rows);
}

TEST_P(EveryScalarDescent, LeavesNoPairOfNeighboursThatWouldImprove) {
  std::vector<RowState> rows = states();
  for (RowState& row : rows) {
    int sweeps = 0;
    while (sweep_codes(h(), row, coded) + sweep_chains(h(), row, coded) != 0) {
      ASSERT_LT(++sweeps, 200);
    }
  }
  const double settled = loss();
  const auto levels = static_cast<int>(coded.grid().levels.size());
  const auto codes = coded.codes(3);
  for (const std::size_t j : {0U, 100U, 510U}) {
    const int first = codes[j];
    const int second = codes[j + 1];
    for (const int move : {-1, 1}) {  // against each other: the inputs go together
      if (std::clamp(first + move, 0, levels - 1) != first + move) continue;
      if (std::clamp(second - move, 0, levels - 1) != second - move) continue;
      codes[j] = static_cast<std::uint8_t>(first + move);
      codes[j + 1] = static_cast<std::uint8_t>(second - move);
      // Of the first weight only the cheaper move is tried, but each of the two is first once.
      if (loss() < settled * (1 - 1e-6)) ++improving;
      codes[j] = static_cast<std::uint8_t>(first);
      codes[j + 1] = static_cast<std::uint8_t>(second);
    }
  }
  EXPECT_EQ(improving, 0);
}

TEST_P(EveryDescent, MovesBlocksOnlyDownhill) {
  std::vector<RowState> rows = states();
  for (RowState& row : rows) {
    while (sweep_codes(h(), row, coded) + sweep_integers(h(), row, coded) != 0) continue;
  }
  const double before = loss();
  rows = states();
  double claimed = 0;
  for (std::size_t first = 0; first < kRows; first += kernels::kRoundedRows) {
    const std::size_t count = std::min(kernels::kRoundedRows, kRows - first);
    claimed += sweep_blocks(h(), std::span(rows).subspan(first, count), coded);
  }
  expect_honest(before, claimed);
  expect_consistent(rows);
}

TEST_P(EveryDescent, MovesIntegersOnlyDownhill) {
  const double before = loss();
  std::vector<RowState> rows = states();
  double claimed = 0;
  for (RowState& row : rows) claimed += sweep_integers(h(), row, coded);
  expect_honest(before, claimed);
  expect_consistent(rows);
}

// One sub-block of each row is made three steps off.
TEST_P(EveryDescent, RestoresIntegersThatWereSpoilt) {
  const quant::IntegerRange range = coded.grid().scales;
  std::vector<RowState> rows = states();
  for (RowState& row : rows) sweep_integers(h(), row, coded);
  const double fitted = loss();
  for (std::size_t r = 0; r < kRows; ++r) {
    std::int8_t& integer = coded.scales(r)[r % coded.scales(r).size()];
    integer = static_cast<std::int8_t>(std::clamp(
        integer < 0 ? integer + 3 * range.step : integer - 3 * range.step, range.low, range.high));
  }
  if (range.is_fixed()) {
    EXPECT_EQ(loss(), fitted);
    return;
  }
  const double spoilt = loss();
  EXPECT_GT(spoilt, 1.01 * fitted);
  rows = states();
  for (RowState& row : rows) sweep_integers(h(), row, coded);
  // Sub-blocks before the spoilt one have moved to make up for it, so not all comes back at once.
  EXPECT_LT(loss() - fitted, 0.5 * (spoilt - fitted));
}

TEST_P(EveryDescent, RefitsScalesOnlyDownhill) {
  const double before = loss();
  std::vector<RowState> rows = states();
  const double claimed = refit_block_scales(h(), rows, coded);
  expect_honest(before, claimed);
  expect_consistent(rows);
  if (!coded.grid().has_half_scale) {
    EXPECT_EQ(claimed, 0.0);  // powers of two are not refitted
  }
}

// Scales one part in 20 too large are found again, to within the f16 steps of the scales.
TEST_P(EveryDescent, RestoresScalesThatWereSpoilt) {
  if (!coded.grid().has_half_scale) return;  // powers of two are not refitted
  std::vector<RowState> rows = states();
  refit_block_scales(h(), rows, coded);
  const double fitted = loss();
  for (std::size_t r = 0; r < kRows; ++r) {
    for (std::uint16_t& stored : coded.block_scales(r)) {
      stored = coded.grid().nearest_scale(1.05F * coded.grid().scale_value(stored));
    }
  }
  EXPECT_GT(loss(), 1.001 * fitted);
  rows = states();
  refit_block_scales(h(), rows, coded);
  EXPECT_NEAR(loss(), fitted, 1e-3 * fitted);
}

TEST_P(EveryDescent, ReturnsTheLossItReached) {
  const double before = loss();
  const double reached = descend(weights.view(), h(), DescentOptions{}, coded, pool);
  EXPECT_NEAR(reached, loss(), 1e-4 * reached);
  EXPECT_LT(reached, before);
}

TEST_P(EveryDescent, DoesNotDependOnTheNumberOfThreads) {
  CodedMatrix other = coded;
  testing::OwnWorkers three(3);
  const double reached = descend(weights.view(), h(), DescentOptions{}, coded, pool);
  EXPECT_EQ(descend(weights.view(), h(), DescentOptions{}, other, three), reached);
  EXPECT_EQ(packed(other, codec), packed(coded, codec));
}

TEST_P(EveryDescent, LeavesAnExactMatrixAlone) {
  for (std::size_t r = 0; r < kRows; ++r) coded.decode_row(r, weights.row(r));
  const auto bytes = packed(coded, codec);
  EXPECT_EQ(descend(weights.view(), h(), DescentOptions{}, coded, pool), 0.0);
  EXPECT_EQ(packed(coded, codec), bytes);
}

}  // namespace
}  // namespace winnow::compress::descent_test

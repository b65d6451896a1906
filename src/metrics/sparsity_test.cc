// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What each system chooses, on layers small enough to try everything.
#include "metrics/sparsity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "base/rng.h"
#include "metrics/cett_curve.h"
#include "model/test_models.h"

namespace winnow::metrics::sparsity_test {
namespace {

using model::testing::error_of;
using ::testing::Each;
using ::testing::HasSubstr;

tensor::Matrix<float> random_matrix(Rng& rng, std::size_t rows, std::size_t cols) {
  tensor::Matrix<float> matrix(rows, cols);
  for (float& value : matrix.flat()) value = static_cast<float>(rng.normal());
  return matrix;
}

/// Two experts of `width` neurons behind a hidden size of 5, and what 40 tokens did in them.
class Layer {
 public:
  explicit Layer(std::size_t width, std::uint64_t seed = 1) : width_(width) {
    Rng rng(seed);
    for (auto& down : downs_) down = random_matrix(rng, 5, width);
    for (std::uint32_t t = 0; t < 40; ++t) sample_.rows.push_back(row(rng, ExpertId{t % 2}));
    for (int e = 0; e < 2; ++e) {
      sample_.mean_square_up.emplace_back();
      for (std::size_t j = 0; j < width; ++j) {
        sample_.mean_square_up.back().push_back(0.1 + 3 * rng.uniform());
      }
    }
  }

  LayerSample::Row row(Rng& rng, ExpertId expert) const {
    LayerSample::Row made{expert, {}, {}};
    for (std::size_t j = 0; j < width_; ++j) {
      made.gate.push_back(static_cast<float>(rng.normal()));
      made.inner.push_back(made.gate.back() * static_cast<float>(rng.normal()));
    }
    return made;
  }
  LayerNeurons neurons() {
    return {2, [this](ExpertId expert) { return downs_[index(expert)].clone(); }, &sample_, pool_};
  }
  std::vector<std::uint8_t> chosen(std::string_view request, const LayerSample::Row& row) {
    const SparsityRequest parsed = parse_sparsity(request);
    const auto filter = parsed.system->make(parsed.level, neurons());
    std::vector<std::uint8_t> drop(width_);
    filter->choose({row.expert, row.gate, row.inner}, drop);
    return drop;
  }
  /// Of all rows of the sample.
  double share(std::string_view request) {
    std::size_t dropped = 0;
    for (const LayerSample::Row& row : sample_.rows) {
      for (const std::uint8_t drop : chosen(request, row)) dropped += drop;
    }
    return static_cast<double>(dropped) / static_cast<double>(sample_.rows.size() * width_);
  }

  LayerSample& sample() { return sample_; }
  tensor::Matrix<float>& down(std::size_t expert) { return downs_[expert]; }

 private:
  std::size_t width_;
  std::array<tensor::Matrix<float>, 2> downs_;
  LayerSample sample_;
  os::ThreadPool pool_{2};
};

std::string request_of(const SparsitySystem& system, double level) {
  return fmt::format("{}:{}", system.name, level);
}

TEST(SparsitySystems, HaveNamesOfTheirOwnAndAPaper) {
  std::set<std::string_view> names;
  for (const SparsitySystem* system : sparsity_systems()) {
    EXPECT_TRUE(names.insert(system->name).second) << system->name;
    EXPECT_THAT(std::string(system->source), HasSubstr("arXiv:"));
    EXPECT_EQ(find_sparsity_system(system->name), system);
  }
  EXPECT_EQ(find_sparsity_system("none"), nullptr);
}

TEST(SparsitySystems, LeaveNothingOutAtTheirDenseLevel) {
  Layer layer(12);
  for (const SparsitySystem* system : sparsity_systems()) {
    EXPECT_EQ(layer.share(request_of(*system, system->dense_level)), 0) << system->name;
  }
}

TEST(SparsitySystems, LeaveEverythingOutAtTheOtherEnd) {
  Layer layer(12);
  for (const SparsitySystem* system : sparsity_systems()) {
    EXPECT_EQ(layer.share(request_of(*system, 1 - system->dense_level)), 1) << system->name;
  }
}

TEST(SparsitySystems, LeaveOutMoreAtEachFurtherLevel) {
  Layer layer(64);
  for (const SparsitySystem* system : sparsity_systems()) {
    double before = 0;
    for (double step = 0; step <= 1; step += 0.125) {
      const double share = layer.share(request_of(*system, std::fabs(system->dense_level - step)));
      EXPECT_GE(share, before) << system->name << " " << step;
      before = share;
    }
  }
}

TEST(SparsitySystems, LeaveOutTheShareThatWasAskedForOfWhatTheyWereCalibratedOn) {
  Layer layer(64);
  for (const char* name : {"chess", "teal", "wina", "top"}) {
    for (const double level : {0.25, 0.5, 0.75}) {
      EXPECT_NEAR(layer.share(fmt::format("{}:{}", name, level)), level, 1e-3) << name;
    }
  }
}

TEST(Chess, HasOneThresholdPerNeuronOnTheGate) {
  Layer layer(12);
  // An importance that is in no row: between the sixth and the seventh of 12, all rows alike.
  auto& rows = layer.sample().rows;
  for (auto& row : rows) {
    row.expert = ExpertId{0};
    for (std::size_t j = 0; j < 12; ++j) {
      const double up = layer.sample().mean_square_up[0][j];
      row.gate[j] = static_cast<float>(std::sqrt(static_cast<double>(j + 1) / up));
    }
  }
  const auto drop = layer.chosen("chess:0.5", rows[0]);
  // T is the sixth importance, 6 up to rounding: neurons below it go, those above it stay, whatever
  // their gates are.
  for (std::size_t j = 0; j < 12; ++j) {
    if (j == 5) continue;
    EXPECT_EQ(drop[j], j < 5 ? 1 : 0) << j;
  }
}

TEST(Chess, JudgesByTheGateAloneAndByTheExpertsOwnStatistics) {
  Layer layer(12);
  LayerSample::Row row = layer.sample().rows[0];
  const auto before = layer.chosen("chess:0.5", row);
  for (float& h : row.inner) h = 100;
  EXPECT_EQ(layer.chosen("chess:0.5", row), before);
  for (double& up : layer.sample().mean_square_up[1]) up *= 1e6;  // the other expert's
  row.expert = ExpertId{1};
  EXPECT_THAT(layer.chosen("chess:0.5", row), Each(0));
}

TEST(Wina, KeepsTheColumnsThatLeaveTheSmallestSumOfSquares) {
  Layer layer(12);
  Rng rng(7);
  for (int trial = 0; trial < 20; ++trial) {
    const LayerSample::Row row = layer.row(rng, ExpertId{trial % 2 == 0 ? 0U : 1U});
    const auto norms = column_norms(layer.down(index(row.expert)).view());
    const auto lost = [&](unsigned dropped) {
      double sum = 0;
      for (std::size_t i = 0; i < 12; ++i) {
        if ((dropped >> i & 1U) == 0) continue;
        sum += double{row.inner[i]} * row.inner[i] * norms[i] * norms[i];
      }
      return sum;
    };
    for (int count = 0; count <= 12; ++count) {
      unsigned best = (1U << count) - 1;
      for (unsigned set = 0; set < 1U << 12; ++set) {
        if (std::popcount(set) == count && lost(set) < lost(best)) best = set;
      }
      const auto drop = layer.chosen(fmt::format("wina:{}", count / 12.0), row);
      unsigned ours = 0;
      for (std::size_t i = 0; i < 12; ++i) ours |= static_cast<unsigned>(drop[i]) << i;
      EXPECT_EQ(ours, best) << count;
    }
  }
}

TEST(Wina, IsTealWhereAllColumnsHaveTheSameNorm) {
  Layer layer(12);
  for (std::size_t e = 0; e < 2; ++e) {
    auto& down = layer.down(e);
    std::fill(down.flat().begin(), down.flat().end(), 0.0F);
    for (std::size_t i = 0; i < 12; ++i) down.row(i % 5)[i] = i % 2 == 0 ? 3.0F : -3.0F;
  }
  const LayerSample::Row row = layer.sample().rows[3];
  layer.sample().rows = {row};  // so that TEAL's quantile is this token's
  for (const double level : {0.0, 0.25, 0.5, 0.75, 1.0}) {
    const auto wina = layer.chosen(fmt::format("wina:{}", level), row);
    EXPECT_EQ(wina, layer.chosen(fmt::format("teal:{}", level), row)) << level;
    EXPECT_EQ(wina, layer.chosen(fmt::format("top:{}", level), row)) << level;
  }
}

TEST(Top, KeepsTheLargestAndOfEqualOnesTheFirst) {
  Layer layer(6);
  LayerSample::Row row = layer.sample().rows[0];
  row.inner = {-2, 1, 3, -1, 1, 0.5F};
  EXPECT_EQ(layer.chosen("top:0.5", row), (std::vector<std::uint8_t>{0, 0, 0, 1, 1, 1}));
}

TEST(Mass, KeepsTheFewestNeuronsThatHaveTheShare) {
  Layer layer(12);
  Rng rng(9);
  for (int trial = 0; trial < 20; ++trial) {
    const LayerSample::Row row = layer.row(rng, ExpertId{0});
    std::vector<double> masses;
    for (std::size_t j = 0; j < 12; ++j) {
      masses.push_back(double{row.gate[j]} * row.gate[j] * layer.sample().mean_square_up[0][j]);
    }
    const double total = std::accumulate(masses.begin(), masses.end(), 0.0);
    for (const double kept : {0.5, 0.8, 0.9, 0.99}) {
      const auto drop = layer.chosen(fmt::format("mass:{}", kept), row);
      double sum = 0;
      for (std::size_t j = 0; j < 12; ++j) sum += drop[j] == 0 ? masses[j] : 0;
      EXPECT_GE(sum, kept * total);
      int fewest = 12;
      for (unsigned set = 0; set < 1U << 12; ++set) {
        double of_set = 0;
        for (std::size_t j = 0; j < 12; ++j) of_set += (set >> j & 1U) != 0 ? masses[j] : 0;
        if (of_set >= kept * total) fewest = std::min(fewest, std::popcount(set));
      }
      EXPECT_EQ(std::count(drop.begin(), drop.end(), 0), fewest) << kept;
    }
  }
}

TEST(Mass, KeepsEverythingForTheWholeMassHoweverSmallItsParts) {
  Layer layer(12);
  LayerSample::Row row = layer.sample().rows[0];
  for (std::size_t j = 0; j < 12; ++j) row.gate[j] = std::ldexp(1.0F, -10 * static_cast<int>(j));
  EXPECT_THAT(layer.chosen("mass:1", row), Each(0));
}

TEST(Cett, IsNothingAtZeroAndAllAtInfinity) {
  Layer layer(64);
  const CettCurve curve(layer.neurons());
  EXPECT_EQ(curve.at(0), 0);
  EXPECT_EQ(curve.at(std::numeric_limits<double>::infinity()), 1);
}

TEST(Cett, RisesWhereColumnsCannotCancel) {
  Layer layer(5);
  for (std::size_t e = 0; e < 2; ++e) {
    for (std::size_t d = 0; d < 5; ++d) {
      for (std::size_t i = 0; i < 5; ++i) {
        if (i != d) layer.down(e).row(d)[i] = 0;
      }
    }
  }
  const CettCurve curve(layer.neurons());
  double before = 0;
  for (double threshold = 0; threshold < 8; threshold += 0.05) {
    EXPECT_GE(curve.at(threshold), before) << threshold;
    before = curve.at(threshold);
  }
}

TEST(Cett, IsTheMeanRelativeErrorOfTheOutputs) {
  Layer layer(12);
  const double threshold = 0.7;
  double sum = 0;
  for (const LayerSample::Row& row : layer.sample().rows) {
    const auto& down = layer.down(index(row.expert));
    const auto norms = column_norms(down.view());
    double lost = 0;
    double whole = 0;
    for (std::size_t d = 0; d < 5; ++d) {
      double dropped = 0;
      double all = 0;
      for (std::size_t i = 0; i < 12; ++i) {
        const double term = double{row.inner[i]} * down.row(d)[i];
        all += term;
        if (std::fabs(double{row.inner[i]}) * norms[i] <= threshold) dropped += term;
      }
      lost += dropped * dropped;
      whole += all * all;
    }
    sum += std::sqrt(lost / whole);
  }
  // Sums of 12 terms in f32: errors below 1e-6 of an output.
  EXPECT_NEAR(CettCurve(layer.neurons()).at(threshold), sum / 40, 1e-5);
}

TEST(Cett, FindsTheThresholdOfAnError) {
  Layer layer(64);
  const CettCurve curve(layer.neurons());
  for (const double level : {0.01, 0.1, 0.2, 0.5, 0.9}) {
    const double threshold = curve.threshold_of(level);
    // A curve of 40 tokens has steps; none is a fortieth of the mean or more.
    EXPECT_LE(curve.at(threshold), level);
    EXPECT_GT(curve.at(threshold), level - 1.0 / 40);
  }
  EXPECT_EQ(curve.threshold_of(0), 0);
  EXPECT_TRUE(std::isinf(curve.threshold_of(1)));
}

TEST(ParseSparsity, ReadsANameAndALevel) {
  const SparsityRequest request = parse_sparsity("mass:0.9");
  EXPECT_EQ(request.system->name, "mass");
  EXPECT_EQ(request.level, 0.9);
  EXPECT_EQ(parse_sparsity("cett:1").level, 1);
}

TEST(ParseSparsity, RefusesOtherNamesAndListsThem) {
  for (const char* text : {"", "foo:0.5", ":0.5", "CHESS:0.5", "chess,teal:0.5"}) {
    const Error error = error_of([&] { parse_sparsity(text); });
    EXPECT_EQ(error.code(), ErrorCode::kUsage) << text;
    EXPECT_THAT(error.what(), HasSubstr("--sparsity"));
    EXPECT_THAT(error.what(), HasSubstr(sparsity_system_names()));
  }
}

TEST(ParseSparsity, RefusesLevelsThatAreNoShare) {
  for (const char* text : {"chess", "chess:", "chess:x", "chess:1.5", "chess:-0.1", "chess:nan",
                           "chess:inf", "chess:0.5 ", "chess:0.5:1"}) {
    const Error error = error_of([&] { parse_sparsity(text); });
    EXPECT_EQ(error.code(), ErrorCode::kUsage) << text;
    EXPECT_THAT(error.what(), HasSubstr("--sparsity"));
    EXPECT_THAT(error.what(), HasSubstr("from 0 to 1"));
  }
}

TEST(HasNeurons, IsFalseWhereAllExpertsComputeNothing) {
  model::ModelSpec spec;
  spec.num_hidden_layers = 1;
  spec.moe_layers = {true};
  spec.moe.num_experts = 2;
  spec.moe.moe_intermediate_size = 4;
  EXPECT_TRUE(has_neurons(spec));
  spec.varied_experts = {{{model::ExpertKind::kZero, 0}, {model::ExpertKind::kIdentity, 0}}};
  EXPECT_FALSE(has_neurons(spec));
  spec.varied_experts[0][1] = {model::ExpertKind::kFeedForward, 4};
  EXPECT_TRUE(has_neurons(spec));
}

}  // namespace
}  // namespace winnow::metrics::sparsity_test

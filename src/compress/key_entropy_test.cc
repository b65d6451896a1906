// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/key_entropy.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/linear_algebra.h"
#include "compress/quantizer_test_support.h"
#include "compress/testing.h"
#include "model/test_models.h"

namespace winnow::compress::key_entropy_test {
namespace {

using testing::random_matrix;

double entropy_of(const tensor::Matrix<float>& x) {
  DirectionMoments moments(x.cols());
  moments.add(x.view());
  return moments.entropy();
}

/// Each axis in both directions: the mean is zero, and sigma the identity over its trace.
tensor::Matrix<float> axes(std::size_t size) {
  tensor::Matrix<float> x(2 * size, size);
  for (std::size_t i = 0; i < size; ++i) {
    x.row(2 * i)[i] = 3;
    x.row(2 * i + 1)[i] = -3;
  }
  return x;
}

TEST(DirectionMoments, HaveFullEntropyWhereAllDirectionsAreAlike) {
  for (const std::size_t size : {2U, 8U, 32U}) EXPECT_NEAR(entropy_of(axes(size)), 1, 1e-9);
  // 20,000 directions in 16 dimensions: eigenvalues within some 5 % of 1 / 16.
  EXPECT_NEAR(entropy_of(random_matrix(1, 20000, 16)), 1, 1e-3);
}

TEST(DirectionMoments, CountOnlyTheLargestEigenvaluesOfManyDimensions) {
  // 32 of 128 equal ones: 32 / 128 log 128 over log 128.
  EXPECT_NEAR(entropy_of(axes(128)), 0.25, 1e-9);
}

TEST(DirectionMoments, HaveNoneWhereAllVectorsAreOnOneLine) {
  const auto line = random_matrix(2, 1, 24);
  tensor::Matrix<float> x(50, 24);
  Rng rng(3);
  for (std::size_t t = 0; t < 50; ++t) {
    const auto along = static_cast<float>(std::ldexp(1.0, static_cast<int>(rng.below(8))));
    for (std::size_t i = 0; i < 24; ++i) x.row(t)[i] = along * line.flat()[i];
  }
  EXPECT_NEAR(entropy_of(x), 0, 1e-9);
  EXPECT_EQ(entropy_of(tensor::Matrix<float>(5, 24)), 0);  // all at their mean
}

TEST(DirectionMoments, DoNotSeeWhereASequenceLiesNorHowLongItsVectorsAre) {
  auto x = random_matrix(4, 300, 12, 1);
  DirectionMoments near(12);
  near.add(x.view());
  near.add(x.view());
  DirectionMoments far(12);
  far.add(x.view());
  for (float& value : x.flat()) value = value * 64 + 1024;
  far.add(x.view());
  EXPECT_NEAR(near.entropy(), far.entropy(), 1e-4);  // the shift rounds some bits away
}

TEST(NuclearNormEstimate, IsExactWhereColumnsAreOrthogonal) {
  auto x = random_matrix(5, 40, 12, 1);
  const SingularValues of_random = [&] {
    tensor::Matrix<double> wide(40, 12);
    std::copy(x.flat().begin(), x.flat().end(), wide.flat().begin());
    return singular_values(std::as_const(wide).view());
  }();
  double expected = 0;
  for (std::size_t c = 0; c < 12; ++c) {
    const double norm = 0.5 + static_cast<double>(c);
    expected += norm;
    for (std::size_t r = 0; r < 40; ++r) {
      x.row(r)[c] = static_cast<float>(norm * of_random.left.row(r)[c]);
    }
  }
  EXPECT_NEAR(nuclear_norm_estimate(x.view()), expected, 1e-5 * expected);
}

TEST(NuclearNormEstimate, CountsAsManyColumnsAsThereCouldBeSingularValues) {
  tensor::Matrix<float> x(2, 4);
  x.row(0)[0] = 3;
  x.row(1)[0] = 4;
  x.row(0)[1] = x.row(0)[2] = 1;
  x.row(1)[3] = 2;
  EXPECT_EQ(nuclear_norm_estimate(x.view()), 7);
}

TEST(KeyEntropy, HasOneNumberForEachHeadAndDoesNotDependOnThreadsOrKeptTypes) {
  Log log;
  const auto checkpoint = model::Checkpoint::open(model::testing::tiny_model("plain"));
  const auto windows = testing::random_windows(3, 40);
  engine::Engine one(checkpoint, {.threads = 1}, log);
  const KeyEntropy entropy = measure_key_entropy(one, windows, log);
  const model::ModelSpec& spec = checkpoint.spec();
  EXPECT_EQ(entropy.tokens, 3 * 41U);
  ASSERT_EQ(entropy.heads.size(), spec.num_hidden_layers);
  for (std::size_t l = 0; l < spec.num_hidden_layers; ++l) {
    EXPECT_GT(entropy.nuclear_norms[l], 0);
    ASSERT_EQ(entropy.heads[l].size(), spec.num_key_value_heads);
    for (const double head : entropy.heads[l]) {
      EXPECT_GT(head, 0);
      EXPECT_LE(head, 1);
    }
  }
  engine::Engine three(checkpoint, {.threads = 3, .kv_type = kernels::KvType::kQ8_0}, log);
  EXPECT_EQ(to_json(measure_key_entropy(three, windows, log)), to_json(entropy));
}

}  // namespace
}  // namespace winnow::compress::key_entropy_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "metrics/distribution.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/rng.h"

namespace winnow::metrics::distribution_test {
namespace {

/// Probabilities by the definition, in long double.
std::vector<long double> softmax(const std::vector<float>& logits) {
  long double largest = logits[0];
  for (const float logit : logits) largest = std::max<long double>(largest, logit);
  std::vector<long double> p;
  long double sum = 0;
  for (const float logit : logits) {
    p.push_back(std::exp(static_cast<long double>(logit) - largest));
    sum += p.back();
  }
  for (long double& value : p) value /= sum;
  return p;
}

std::vector<float> random_logits(Rng& rng, std::size_t size, double spread) {
  std::vector<float> logits(size);
  for (float& logit : logits) logit = static_cast<float>(spread * rng.normal());
  return logits;
}

TEST(Distribution, LogSumExpOfEqualLogitsAddsTheLogarithmOfTheirNumber) {
  for (const float level : {-80.0F, 0.0F, 80.0F, 3e38F}) {
    EXPECT_DOUBLE_EQ(log_sum_exp(std::vector<float>(7, level)), double{level} + std::log(7.0));
  }
  EXPECT_EQ(log_sum_exp(std::vector<float>{-12.5F}), -12.5);
}

TEST(Distribution, LogSumExpNeitherOverflowsNorLosesTheDominatingLogit) {
  // exp(80) alone is beyond nothing in f64, but exp(1000) is; the sum is the largest plus 1e-300.
  EXPECT_EQ(log_sum_exp(std::vector<float>{1000.0F, 0.0F, -1000.0F}), 1000.0);
  EXPECT_NEAR(log_sum_exp(std::vector<float>{80.0F, -80.0F}), 80.0, 1e-13);
  EXPECT_NEAR(log_sum_exp(std::vector<float>{-80.0F, -81.0F}), -80.0 + std::log1p(std::exp(-1.0)),
              1e-13);
}

TEST(Distribution, KlOfTwoOutcomesIsTheHandComputedValue) {
  // P = (3/4, 1/4), Q = (1/2, 1/2): 3/4 ln(3/2) + 1/4 ln(1/2); total variation 1/4.
  const std::vector<float> p = {static_cast<float>(std::log(3.0)), 0.0F};
  const std::vector<float> q = {5.0F, 5.0F};
  const Divergence divergence = compare(p, q);
  // log(3) is rounded to f32: an error of 1e-7 at most in the logit, and less in the results.
  EXPECT_NEAR(divergence.kl, 0.75 * std::log(1.5) + 0.25 * std::log(0.5), 1e-7);
  EXPECT_NEAR(divergence.total_variation, 0.25, 1e-7);
  EXPECT_TRUE(divergence.same_top);  // ties go to the lower index
}

TEST(Distribution, CompareEqualsTheDefinitionOnRandomLogits) {
  Rng rng(5);
  for (int round = 0; round < 200; ++round) {
    const double spread = std::vector<double>{0.01, 1, 10, 40}[round % 4];
    const auto reference = random_logits(rng, 1 + rng.below(300), spread);
    const auto model = random_logits(rng, reference.size(), spread);
    const auto p = softmax(reference);
    const auto q = softmax(model);
    long double kl = 0;
    long double variation = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
      if (p[i] > 0) kl += p[i] * std::log(p[i] / q[i]);
      variation += std::fabs(p[i] - q[i]) / 2;
    }
    const Divergence divergence = compare(reference, model);
    // f64 sums of at most 300 terms below 200: 300 * 200 * 1e-16.
    EXPECT_NEAR(divergence.kl, static_cast<double>(kl), 1e-11) << round;
    EXPECT_NEAR(divergence.total_variation, static_cast<double>(variation), 1e-11) << round;
    EXPECT_GE(divergence.kl, 0.0);
    // Pinsker: total variation <= sqrt(KL / 2).
    EXPECT_LE(divergence.total_variation, std::sqrt(divergence.kl / 2) + 1e-9);
    EXPECT_EQ(divergence.same_top, argmax(reference) == argmax(model));
  }
}

TEST(Distribution, ADistributionIsAtNoDistanceFromItself) {
  Rng rng(6);
  for (const double spread : {0.0, 1.0, 80.0}) {
    const auto logits = random_logits(rng, 1000, spread);
    const Divergence divergence = compare(logits, logits);
    EXPECT_EQ(divergence.kl, 0.0);
    EXPECT_EQ(divergence.total_variation, 0.0);
    EXPECT_TRUE(divergence.same_top);
  }
}

TEST(Distribution, AShiftOfAllLogitsChangesNothing) {
  const std::vector<float> p = {1.0F, -2.0F, 0.5F};
  const Divergence divergence = compare(p, std::vector<float>{65.0F, 62.0F, 64.5F});
  EXPECT_NEAR(divergence.kl, 0.0, 1e-14);
  EXPECT_NEAR(divergence.total_variation, 0.0, 1e-14);
}

TEST(Distribution, DisjointDistributionsAreAtTheLargestDistance) {
  const Divergence divergence =
      compare(std::vector<float>{80.0F, -80.0F}, std::vector<float>{-80.0F, 80.0F});
  EXPECT_NEAR(divergence.kl, 160.0, 1e-10);
  EXPECT_NEAR(divergence.total_variation, 1.0, 1e-12);
  EXPECT_FALSE(divergence.same_top);
}

TEST(Distribution, TokensWithoutAnyProbabilityAddNothing) {
  // exp(-2000) is 0 in f64: 0 * ln(0 / q) must not become NaN.
  const Divergence divergence =
      compare(std::vector<float>{0.0F, -2000.0F}, std::vector<float>{0.0F, 0.0F});
  EXPECT_NEAR(divergence.kl, std::log(2.0), 1e-14);
}

TEST(Distribution, OneMinusTotalVariationIsTheSharedProbability) {
  Rng rng(7);
  const auto reference = random_logits(rng, 64, 3);
  const auto model = random_logits(rng, 64, 3);
  const auto p = softmax(reference);
  const auto q = softmax(model);
  long double shared = 0;  // the acceptance rate of speculative sampling
  for (std::size_t i = 0; i < p.size(); ++i) shared += std::min(p[i], q[i]);
  EXPECT_NEAR(1 - compare(reference, model).total_variation, static_cast<double>(shared), 1e-12);
  EXPECT_DOUBLE_EQ(compare(reference, model).total_variation,
                   compare(model, reference).total_variation);
}

TEST(Distribution, TheFirstOfEqualLargestValuesIsTheTop) {
  EXPECT_EQ(argmax(std::vector<float>{1.0F, 3.0F, 3.0F}), 1U);
  EXPECT_EQ(argmax(std::vector<float>{-1.0F}), 0U);
}

TEST(Distribution, RefusesVocabulariesOfDifferentSize) {
  EXPECT_THROW(compare(std::vector<float>(3), std::vector<float>(4)), Error);
}

}  // namespace
}  // namespace winnow::metrics::distribution_test

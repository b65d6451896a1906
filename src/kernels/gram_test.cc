// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Gram matrices on every ISA: integers exactly, random values within the bound of their f32 sums,
// and the same bits however the rows of the triangle are shared out.
#include <cmath>
#include <deque>
#include <vector>

#include "base/rng.h"
#include "kernels/testing.h"

namespace winnow::kernels::gram_test {
namespace {

using testing::Guarded;

constexpr std::size_t kWidths[] = {1, 5, 6, 7, 12, 13, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 130};
constexpr std::size_t kCounts[] = {0, 1, 2, 63, 64};

struct Inputs {
  Inputs(std::size_t count, std::size_t n, bool integers) : weights(count) {
    Rng rng(count * 1000 + n);
    for (std::size_t t = 0; t < count; ++t) {
      rows.emplace_back(n);
      for (std::size_t j = 0; j < n; ++j) {
        rows.back()[j] =
            integers ? static_cast<float>(rng.below(9)) - 4.0F : static_cast<float>(rng.normal());
      }
      weights[t] = integers ? static_cast<float>(rng.below(4)) : static_cast<float>(rng.uniform());
    }
    for (auto& row : rows) pointers.push_back(row.data());
  }
  double sum(std::size_t i, std::size_t j, bool weighted, bool of_magnitudes = false) {
    double total = 0;
    for (std::size_t t = 0; t < rows.size(); ++t) {
      const double term = double{rows[t][i]} * double{rows[t][j]};
      total += (weighted ? double{weights[t]} : 1.0) * (of_magnitudes ? std::fabs(term) : term);
    }
    return total;
  }
  std::deque<Guarded<float>> rows;
  Guarded<float> weights;
  std::vector<const float*> pointers;
};

/// Sums that begin at `at % 3`, so that adding is seen too.
void fill(Guarded<double>& sums) {
  for (std::size_t at = 0; at < sums.size(); ++at) sums[at] = static_cast<double>(at % 3);
}

class GramMatrices : public ::testing::TestWithParam<const Kernels*> {
 protected:
  const Kernels& kernels() const { return *GetParam(); }
};

TEST_P(GramMatrices, OfSmallIntegersAreExact) {
  for (const std::size_t n : kWidths) {
    for (const std::size_t count : kCounts) {
      for (const bool weighted : {false, true}) {
        Inputs inputs(count, n, /*integers=*/true);
        Guarded<double> sums(n * (n + 1) / 2);
        fill(sums);
        kernels().add_gram(inputs.pointers.data(), weighted ? inputs.weights.data() : nullptr,
                           count, 0, n, sums.data());
        for (std::size_t i = 0, at = 0; i < n; ++i) {
          for (std::size_t j = 0; j <= i; ++j, ++at) {
            ASSERT_EQ(sums[at], static_cast<double>(at % 3) + inputs.sum(i, j, weighted))
                << count << " rows of " << n << ", entry " << i << ", " << j;
          }
        }
      }
    }
  }
}

// A chain of `count` additions of products of two roundings each.
TEST_P(GramMatrices, AreWithinTheBoundOfTheirSums) {
  for (const std::size_t n : kWidths) {
    for (const std::size_t count : kCounts) {
      Inputs inputs(count, n, /*integers=*/false);
      Guarded<double> sums(n * (n + 1) / 2);
      for (std::size_t at = 0; at < sums.size(); ++at) sums[at] = 0;
      kernels().add_gram(inputs.pointers.data(), inputs.weights.data(), count, 0, n, sums.data());
      for (std::size_t i = 0, at = 0; i < n; ++i) {
        for (std::size_t j = 0; j <= i; ++j, ++at) {
          const double bound = static_cast<double>(count + 2) * testing::kUnit *
                               inputs.sum(i, j, true, /*of_magnitudes=*/true);
          ASSERT_NEAR(sums[at], inputs.sum(i, j, true), bound);
        }
      }
    }
  }
}

TEST_P(GramMatrices, HaveTheSameBitsHoweverTheirRowsAreShared) {
  constexpr std::size_t kSize = 130;
  Inputs inputs(64, kSize, /*integers=*/false);
  Guarded<double> whole(kSize * (kSize + 1) / 2);
  Guarded<double> parts(kSize * (kSize + 1) / 2);
  fill(whole);
  fill(parts);
  const auto add = [&](std::size_t begin, std::size_t end, Guarded<double>& sums) {
    kernels().add_gram(inputs.pointers.data(), inputs.weights.data(), 64, begin, end, sums.data());
  };
  add(0, kSize, whole);
  add(97, kSize, parts);
  add(0, 1, parts);
  add(1, 41, parts);
  add(41, 97, parts);
  EXPECT_TRUE(whole.same_bytes(parts));
}

INSTANTIATE_TEST_SUITE_P(Isas, GramMatrices, ::testing::ValuesIn(testing::isas_here()),
                         testing::isa_name);

}  // namespace
}  // namespace winnow::kernels::gram_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The f64 sums over rows of f32 on every ISA: the bits of the reference, and integers exactly.
#include <algorithm>
#include <cmath>
#include <deque>
#include <vector>

#include "base/rng.h"
#include "kernels/testing.h"

namespace winnow::kernels::columns_test {
namespace {

using testing::Guarded;

constexpr std::size_t kWidths[] = {0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 257};
constexpr std::size_t kCounts[] = {0, 1, 2, 3, 4, 5, 9};

/// Rows with guards around each, and a weight for each.
struct Rows {
  Rows(std::size_t count, std::size_t n, bool integers) {
    Rng rng(count * 1000 + n);
    const auto value = [&] {
      return integers ? static_cast<double>(rng.below(9)) - 4 : rng.normal();
    };
    for (std::size_t t = 0; t < count; ++t) {
      values.emplace_back(n);
      for (std::size_t j = 0; j < n; ++j) values.back()[j] = static_cast<float>(value());
      weights.push_back(value());
    }
    for (auto& row : values) pointers.push_back(row.data());
  }
  std::deque<Guarded<float>> values;
  std::vector<const float*> pointers;
  std::vector<double> weights;
};

/// What all the column kernels make of some rows, beginning with sums that are not zero.
struct Sums {
  Sums(const Kernels& kernels, const Rows& rows, std::size_t n)
      : squares(n),
        weighted_squares(n),
        sums(n),
        weighted_sums(n),
        products(n),
        all_squares(n),
        magnitudes(n),
        largest(n),
        dots(rows.pointers.size()) {
    for (auto* values : {&squares, &weighted_squares, &sums, &weighted_sums, &products,
                         &all_squares, &magnitudes}) {
      for (std::size_t j = 0; j < n; ++j) (*values)[j] = static_cast<double>(j % 5);
    }
    for (std::size_t j = 0; j < n; ++j) largest[j] = static_cast<float>(j % 2);
    const std::size_t count = rows.pointers.size();
    const float* const* pointers = rows.pointers.data();
    const double* weights = rows.weights.data();
    kernels.column_squares(pointers, weights, count, n, squares.data(), weighted_squares.data());
    kernels.column_values(pointers, weights, count, n, sums.data(), weighted_sums.data());
    kernels.column_products(pointers, weights, count, n, products.data());
    kernels.column_magnitudes(pointers, count, n, all_squares.data(), magnitudes.data(),
                              largest.data());
    if (count > 0) kernels.wide_dots(pointers[0], pointers, count, n, dots.data());
  }
  std::vector<double> flat() {
    std::vector<double> all;
    for (auto* values : {&squares, &weighted_squares, &sums, &weighted_sums, &products,
                         &all_squares, &magnitudes, &dots}) {
      all.insert(all.end(), values->data(), values->data() + values->size());
    }
    all.insert(all.end(), largest.data(), largest.data() + largest.size());
    return all;
  }
  Guarded<double> squares, weighted_squares, sums, weighted_sums, products, all_squares, magnitudes;
  Guarded<float> largest;
  Guarded<double> dots;
};

class ColumnSums : public ::testing::TestWithParam<const Kernels*> {
 protected:
  const Kernels& kernels() const { return *GetParam(); }
};

TEST_P(ColumnSums, HaveTheBitsOfTheReference) {
  const Kernels& reference = select_kernels("scalar", os::CpuFeatures::detect());
  for (const std::size_t n : kWidths) {
    for (const std::size_t count : kCounts) {
      Rows rows(count, n, /*integers=*/false);
      EXPECT_EQ(Sums(kernels(), rows, n).flat(), Sums(reference, rows, n).flat())
          << count << " x " << n;
    }
  }
}

TEST_P(ColumnSums, OfSmallIntegersAreExact) {
  constexpr std::size_t kColumns = 37;
  Rows rows(9, kColumns, /*integers=*/true);
  Sums got(kernels(), rows, kColumns);
  for (std::size_t j = 0; j < kColumns; ++j) {
    const auto start = static_cast<double>(j % 5);
    double squares = start, weighted_squares = start, sum = start, weighted = start;
    double magnitudes = start;
    double largest = static_cast<double>(j % 2);
    for (std::size_t t = 0; t < 9; ++t) {
      const double x = double{rows.values[t][j]};
      squares += x * x;
      weighted_squares += rows.weights[t] * x * x;
      sum += x;
      weighted += rows.weights[t] * x;
      magnitudes += std::fabs(x);
      largest = std::max(largest, std::fabs(x));
    }
    EXPECT_EQ(got.squares[j], squares);
    EXPECT_EQ(got.all_squares[j], squares);
    EXPECT_EQ(got.weighted_squares[j], weighted_squares);
    EXPECT_EQ(got.sums[j], sum);
    EXPECT_EQ(got.weighted_sums[j], weighted);
    EXPECT_EQ(got.products[j], weighted);
    EXPECT_EQ(got.magnitudes[j], magnitudes);
    EXPECT_EQ(double{got.largest[j]}, largest);
  }
  for (std::size_t r = 0; r < 9; ++r) {
    double dot = 0;
    for (std::size_t j = 0; j < kColumns; ++j) {
      dot += double{rows.values[0][j]} * double{rows.values[r][j]};
    }
    EXPECT_EQ(got.dots[r], dot);
  }
}

TEST_P(ColumnSums, FindTheLargestMagnitudeAnywhere) {
  for (const std::size_t n : kWidths) {
    Guarded<float> x(n);
    for (std::size_t j = 0; j < n; ++j) x[j] = 0.5F;
    EXPECT_EQ(kernels().largest_magnitude(x.data(), n), n == 0 ? 0.0F : 0.5F);
    for (std::size_t j = 0; j < n; ++j) {
      x[j] = -3.0F;
      EXPECT_EQ(kernels().largest_magnitude(x.data(), n), 3.0F);
      x[j] = 0.5F;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, ColumnSums, ::testing::ValuesIn(testing::isas_here()),
                         testing::isa_name);

}  // namespace
}  // namespace winnow::kernels::columns_test

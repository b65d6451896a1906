// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/hadamard.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "base/rng.h"
#include "compress/quantizer_test_support.h"

namespace winnow::compress::hadamard_test {
namespace {

using testing::random_matrix;

/// The matrix by its definition, in blocks.
double element(std::size_t i, std::size_t j, std::size_t block) {
  if (i / block != j / block) return 0;
  const double sign = std::popcount(i % block & j % block) % 2 == 0 ? 1 : -1;
  return sign / std::sqrt(static_cast<double>(block));
}

std::vector<float> unit(std::size_t size, std::size_t place) {
  std::vector<float> x(size);
  x[place] = 1;
  return x;
}

class Hadamard : public ::testing::TestWithParam<std::size_t> {};
INSTANTIATE_TEST_SUITE_P(Sizes, Hadamard,
                         ::testing::Values(1, 2, 3, 4, 8, 12, 32, 64, 80, 96, 128, 256));

TEST_P(Hadamard, IsTheMatrixOfItsDefinition) {
  const std::size_t size = GetParam();
  const std::size_t block = hadamard_block(size);
  EXPECT_EQ(size % block, 0U);
  EXPECT_EQ(size / block % 2, 1U);
  for (std::size_t j = 0; j < size; ++j) {
    std::vector<float> x = unit(size, j);
    hadamard(std::span(x));
    for (std::size_t i = 0; i < size; ++i) EXPECT_NEAR(x[i], element(i, j, block), 1e-7);
  }
}

TEST_P(Hadamard, TimesItsTransposeIsOne) {
  const std::size_t size = GetParam();
  std::vector<std::vector<float>> columns;
  for (std::size_t j = 0; j < size; ++j) {
    columns.push_back(unit(size, j));
    hadamard(std::span(columns.back()));
  }
  for (std::size_t i = 0; i < size; ++i) {
    for (std::size_t j = 0; j < size; ++j) {
      double sum = 0;
      for (std::size_t k = 0; k < size; ++k) sum += double{columns[k][i]} * columns[k][j];
      EXPECT_NEAR(sum, i == j ? 1 : 0, 1e-6);
    }
  }
}

TEST_P(Hadamard, UndoesItself) {
  const auto before = random_matrix(1, 1, GetParam());
  auto x = before.clone();
  hadamard(x.flat());
  hadamard(x.flat());
  for (std::size_t i = 0; i < GetParam(); ++i) EXPECT_NEAR(x.flat()[i], before.flat()[i], 1e-5);
}

TEST_P(Hadamard, KeepsTheProductsOfQueriesAndKeys) {
  auto queries = random_matrix(1, 20, GetParam());
  auto keys = random_matrix(2, 20, GetParam());
  const auto product = [&](std::size_t i, std::size_t j) {
    double sum = 0;
    for (std::size_t d = 0; d < GetParam(); ++d) {
      sum += double{queries.row(i)[d]} * double{keys.row(j)[d]};
    }
    return sum;
  };
  const auto norm = [](std::span<const float> x) {
    double sum = 0;
    for (const float value : x) sum += double{value} * value;
    return std::sqrt(sum);
  };
  std::vector<double> before;
  for (std::size_t i = 0; i < 20; ++i) {
    for (std::size_t j = 0; j < 20; ++j) before.push_back(product(i, j));
  }
  hadamard_each(queries.flat(), GetParam());
  hadamard_each(keys.flat(), GetParam());
  for (std::size_t i = 0; i < 20; ++i) {
    for (std::size_t j = 0; j < 20; ++j) {
      const double scale = norm(queries.row(i)) * norm(keys.row(j));
      EXPECT_NEAR(product(i, j), before[i * 20 + j], 1e-5 * scale);
    }
  }
}

TEST(HadamardRows, TransformsTheColumnsOfEachStretch) {
  auto weights = random_matrix(3, 24, 5);
  const auto before = weights.clone();
  hadamard_rows(weights.view(), 12);
  for (std::size_t c = 0; c < 5; ++c) {
    std::vector<float> column;
    for (std::size_t r = 0; r < 24; ++r) column.push_back(before.row(r)[c]);
    hadamard_each(std::span(column), 12);
    for (std::size_t r = 0; r < 24; ++r) EXPECT_EQ(weights.row(r)[c], column[r]);
  }
}

}  // namespace
}  // namespace winnow::compress::hadamard_test

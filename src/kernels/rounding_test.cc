// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The kernels of the Hessian quantiser on every ISA: those that choose codes and moves give the
// bits of the scalar reference, products are exact for integers and within the bound of their sums.
#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.h"
#include "kernels/testing.h"

namespace winnow::kernels::rounding_test {
namespace {

using testing::Guarded;

const Kernels& scalar() { return select_kernels("scalar", os::CpuFeatures::detect()); }

void fill(Guarded<float>& values, Rng& rng, float scale = 1) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = scale * static_cast<float>(rng.normal());
  }
}

/// Grids whose codes may stand alone.
std::vector<const quant::BlockGrid*> grids() {
  std::vector<const quant::BlockGrid*> result;
  for (const quant::Codec* codec : quant::all_codecs()) {
    if (codec->grid != nullptr && codec->grid->codebook == nullptr) result.push_back(codec->grid);
  }
  return result;
}

class Rounding : public ::testing::TestWithParam<const Kernels*> {
 protected:
  const Kernels& kernels() const { return *GetParam(); }
};

/// Steps of both signs, some of them zero or too small for an inverse.
void fill_steps(Guarded<float>& steps, Rng& rng) {
  fill(steps, rng, 0.1F);
  for (std::size_t i = 0; i < steps.size(); i += 7) steps[i] = i % 2 == 0 ? 0.0F : 0x1p-130F;
}

TEST_P(Rounding, TriesSubBlocksWithTheBitsOfTheReference) {
  Rng rng(1);
  for (const quant::BlockGrid* grid : grids()) {
    const quant::LevelRounder rounder(*grid);
    const std::size_t size = grid->sub_size;
    const std::size_t stride = size + 5;
    Guarded<float> h(size * stride);
    Guarded<float> gradients(size * kRoundedRows);
    Guarded<float> values(size * kRoundedRows);
    Guarded<float> steps(kRoundedRows);
    Guarded<float> offsets(kRoundedRows);
    fill(h, rng, 0.2F);
    for (std::size_t i = 0; i < size; ++i) h[i * stride + i] = 1 + std::fabs(h[i * stride + i]);
    fill(gradients, rng);
    fill(values, rng);
    fill_steps(steps, rng);
    fill(offsets, rng, grid->has_mins() ? 1.0F : 0.0F);
    const SubBlockTrial task{&rounder,         size,          h.data(),     stride,
                             gradients.data(), values.data(), steps.data(), offsets.data()};
    SubBlockChoice wanted;
    SubBlockChoice got;
    scalar().try_sub_block(task, wanted);
    kernels().try_sub_block(task, got);
    for (std::size_t r = 0; r < kRoundedRows; ++r) ASSERT_EQ(got.changes[r], wanted.changes[r]);
    for (std::size_t i = 0; i < size * kRoundedRows; ++i) {
      ASSERT_EQ(got.values[i], wanted.values[i]) << i;
      ASSERT_EQ(got.codes[i], wanted.codes[i]) << i;
    }
  }
}

TEST_P(Rounding, FeedsErrorsBackWithTheBitsOfTheReference) {
  Rng rng(2);
  for (const quant::BlockGrid* grid : grids()) {
    const quant::LevelRounder rounder(*grid);
    const std::size_t size = grid->block_size;
    const std::size_t subs = size / grid->sub_size;
    const std::size_t stride = size + 3;
    Guarded<float> factor(size * stride);
    Guarded<float> steps(subs * kRoundedRows);
    Guarded<float> offsets(subs * kRoundedRows);
    fill(factor, rng, 0.1F);
    for (std::size_t i = 0; i < size; ++i)
      factor[i * stride + i] = 0.5F + static_cast<float>(rng.uniform());
    fill_steps(steps, rng);
    fill(offsets, rng, grid->has_mins() ? 1.0F : 0.0F);
    std::vector<std::uint8_t> sub_blocks(size);
    for (std::uint8_t& sub : sub_blocks) sub = static_cast<std::uint8_t>(rng.below(subs));
    Guarded<float> targets[2] = {Guarded<float>(size * kRoundedRows),
                                 Guarded<float>(size * kRoundedRows)};
    fill(targets[0], rng);
    std::copy_n(targets[0].data(), targets[0].size(), targets[1].data());
    Guarded<float> errors[2] = {Guarded<float>(size * kRoundedRows),
                                Guarded<float>(size * kRoundedRows)};
    Guarded<std::uint8_t> codes[2] = {Guarded<std::uint8_t>(size * kRoundedRows),
                                      Guarded<std::uint8_t>(size * kRoundedRows)};
    for (const int which : {0, 1}) {
      (which == 0 ? scalar() : kernels())
          .feed_back({&rounder, size, factor.data(), stride, sub_blocks.data(), steps.data(),
                      offsets.data(), targets[which].data(), errors[which].data(),
                      codes[which].data()});
    }
    EXPECT_TRUE(codes[0].same_bytes(codes[1]));
    for (std::size_t i = 0; i < errors[0].size(); ++i) ASSERT_EQ(errors[0][i], errors[1][i]) << i;
  }
}

TEST_P(Rounding, FindsTheCheapestMoveOfTheReference) {
  Rng rng(3);
  for (const std::size_t size : {1, 8, 15, 16, 17, 32, 100, 576}) {
    for (int turn = 0; turn < 20; ++turn) {
      Guarded<float> from(size), row(size), up(size), down(size), diagonal(size);
      fill(from, rng, 0.3F);
      fill(row, rng, 0.1F);
      for (std::size_t j = 0; j < size; ++j) {
        // Coarse numbers, so that costs tie; some weights cannot move.
        from[j] = std::nearbyint(4 * from[j]) / 4;
        row[j] = std::nearbyint(8 * row[j]) / 8;
        up[j] = rng.below(4) == 0 ? 0.0F : 1.0F;
        down[j] = rng.below(4) == 0 ? 0.0F : -1.0F;
        diagonal[j] = turn % 2 == 0 ? 1.0F : 0.25F;
      }
      Guarded<float> gradients[2] = {Guarded<float>(size), Guarded<float>(size)};
      std::size_t found[2];
      for (const int which : {0, 1}) {
        found[which] = (which == 0 ? scalar() : kernels())
                           .cheapest_move({size, from.data(), 0.5F, row.data(), up.data(),
                                           down.data(), diagonal.data(), gradients[which].data()});
      }
      ASSERT_EQ(found[0], found[1]) << size << " weights, turn " << turn;
      ASSERT_TRUE(gradients[0].same_bytes(gradients[1]));
    }
  }
}

TEST_P(Rounding, FindsNoMoveWhereNoneIsCheap) {
  constexpr std::size_t kSize = 40;
  Guarded<float> zeros(kSize), ones(kSize), gradient(kSize);
  for (std::size_t j = 0; j < kSize; ++j) {
    zeros[j] = 0;
    ones[j] = 1;
  }
  EXPECT_EQ(kernels().cheapest_move({kSize, zeros.data(), 1.0F, zeros.data(), ones.data(),
                                     ones.data(), ones.data(), gradient.data()}),
            kSize);
}

struct Factors {
  Factors(std::size_t rows, std::size_t depth, std::size_t cols, Rng& rng, bool integers)
      : m(rows), k(depth), n(cols), a(rows * depth), b(depth * (cols + 3)), out(rows * (cols + 1)) {
    const auto draw = [&] {
      return integers ? static_cast<float>(rng.below(9)) - 4.0F : static_cast<float>(rng.normal());
    };
    for (std::size_t i = 0; i < a.size(); ++i) a[i] = draw();
    for (std::size_t i = 0; i < b.size(); ++i) b[i] = draw();
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = draw();
  }
  /// `transposed`: a is stored [k, m].
  FloatProduct task(bool transposed, float scale, bool add) {
    return {a.data(),
            transposed ? 1 : k,
            transposed ? m : 1,
            {b.data(), k, n, n + 3},
            {out.data(), m, n, n + 1},
            scale,
            add};
  }
  float left(std::size_t i, std::size_t t, bool transposed) {
    return transposed ? a[t * m + i] : a[i * k + t];
  }

  std::size_t m, k, n;
  Guarded<float> a, b, out;
};

TEST_P(Rounding, ProductsOfIntegersAreExact) {
  Rng rng(4);
  for (const std::size_t m : {1, 3, 4, 8, 9, 16}) {
    for (const std::size_t k : {0, 1, 31, 256, 257}) {
      for (const std::size_t n : {1, 15, 16, 24, 48, 49, 100}) {
        for (const bool transposed : {false, true}) {
          Factors f(m, k, n, rng, /*integers=*/true);
          const float scale = transposed ? -1.0F : 1.0F;
          std::vector<float> wanted;
          for (std::size_t i = 0; i < m; ++i) {
            for (std::size_t j = 0; j < n; ++j) {
              float sum = transposed ? f.out[i * (n + 1) + j] : 0.0F;
              for (std::size_t t = 0; t < k; ++t) {
                sum += scale * f.left(i, t, transposed) * f.b[t * (n + 3) + j];
              }
              wanted.push_back(sum);
            }
          }
          kernels().multiply(f.task(transposed, scale, /*add=*/transposed));
          for (std::size_t i = 0; i < m * n; ++i) {
            ASSERT_EQ(f.out[i / n * (n + 1) + i % n], wanted[i]) << m << ' ' << k << ' ' << n;
          }
        }
      }
    }
  }
}

// A chain of k multiply-adds, each rounded at most twice.
TEST_P(Rounding, ProductsAreWithinTheBoundOfTheirSums) {
  Rng rng(5);
  Factors f(16, 300, 100, rng, /*integers=*/false);
  kernels().multiply(f.task(/*transposed=*/false, 1, /*add=*/false));
  for (std::size_t i = 0; i < f.m; ++i) {
    for (std::size_t j = 0; j < f.n; ++j) {
      double sum = 0;
      double magnitude = 0;
      for (std::size_t t = 0; t < f.k; ++t) {
        const double term = double{f.left(i, t, false)} * f.b[t * (f.n + 3) + j];
        sum += term;
        magnitude += std::fabs(term);
      }
      ASSERT_NEAR(f.out[i * (f.n + 1) + j], sum,
                  2 * static_cast<double>(f.k) * testing::kUnit * magnitude);
    }
  }
}

TEST_P(Rounding, ProductsHaveTheSameBitsHoweverTheyAreCut) {
  Rng rng(6);
  Factors whole(16, 300, 100, rng, /*integers=*/false);
  Rng again(6);
  Factors cut(16, 300, 100, again, /*integers=*/false);
  kernels().multiply(whole.task(false, 1, false));
  FloatProduct task = cut.task(false, 1, false);
  for (const auto& [first, count] : {std::pair<std::size_t, std::size_t>{0, 5}, {5, 11}}) {
    for (const auto& [column, columns] : {std::pair<std::size_t, std::size_t>{0, 33}, {33, 67}}) {
      FloatProduct part = task;
      part.a = task.a + first * task.row_stride;
      part.b = {task.b.data + column, task.b.rows, columns, task.b.row_stride};
      part.out = {task.out.data + first * task.out.row_stride + column, count, columns,
                  task.out.row_stride};
      kernels().multiply(part);
    }
  }
  EXPECT_TRUE(whole.out.same_bytes(cut.out));
}

INSTANTIATE_TEST_SUITE_P(Isas, Rounding, ::testing::ValuesIn(testing::isas_here()),
                         testing::isa_name);

}  // namespace
}  // namespace winnow::kernels::rounding_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Vector operations on every ISA against f64, at sizes around the width of a vector.
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/rng.h"
#include "kernels/testing.h"

namespace winnow::kernels::vectors_test {
namespace {

using testing::Guarded;
using testing::kUnit;

constexpr std::size_t kSizes[] = {0,  1,  2,  3,  7,  8,  9,  15,  16,  17,  31,
                                  32, 33, 48, 63, 64, 65, 97, 127, 257, 1000};
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// Normal random numbers, or integers in [-4, 4].
void fill(Guarded<float>& values, std::uint64_t seed, bool integers = false) {
  Rng rng(seed);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] =
        integers ? static_cast<float>(rng.below(9)) - 4.0F : static_cast<float>(rng.normal());
  }
}

class Vectors : public ::testing::TestWithParam<const Kernels*> {
 protected:
  const Kernels& kernels() const { return *GetParam(); }
};

TEST_P(Vectors, DotOfSmallIntegersIsExact) {
  for (const std::size_t n : kSizes) {
    Guarded<float> a(n);
    Guarded<float> b(n);
    fill(a, n, /*integers=*/true);
    fill(b, n + 1, /*integers=*/true);
    double wanted = 0;
    for (std::size_t i = 0; i < n; ++i) wanted += double{a[i]} * b[i];
    EXPECT_EQ(kernels().dot(a.data(), b.data(), n), wanted) << n;
  }
}

TEST_P(Vectors, DotStaysWithinTheBoundOfF32Sums) {
  for (const std::size_t n : kSizes) {
    Guarded<float> a(n);
    Guarded<float> b(n);
    fill(a, n);
    fill(b, n + 1);
    double wanted = 0;
    double magnitude = 0;
    for (std::size_t i = 0; i < n; ++i) {
      wanted += double{a[i]} * b[i];
      magnitude += std::fabs(double{a[i]} * b[i]);
    }
    // One rounding per product and one per addition of a chain of n.
    EXPECT_LE(std::fabs(kernels().dot(a.data(), b.data(), n) - wanted),
              static_cast<double>(n + 1) * kUnit * magnitude);
  }
}

TEST_P(Vectors, AxpyRoundsAtMostTwice) {
  for (const std::size_t n : kSizes) {
    Guarded<float> x(n);
    Guarded<float> y(n);
    fill(x, n);
    fill(y, n + 1);
    const std::vector<float> before(y.data(), y.data() + n);
    kernels().axpy(0.37F, x.data(), y.data(), n);
    for (std::size_t i = 0; i < n; ++i) {
      const double product = double{0.37F} * x[i];
      ASSERT_LE(std::fabs(y[i] - (product + before[i])),
                2 * kUnit * (2 * std::fabs(product) + std::fabs(double{before[i]})));
    }
  }
}

TEST_P(Vectors, RmsNormScalesToUnitMeanSquare) {
  constexpr float kEpsilon = 1e-6F;
  for (const std::size_t n : kSizes) {
    Guarded<float> x(n);
    Guarded<float> weight(n);
    Guarded<float> out(n);
    fill(x, n);
    fill(weight, n + 1);
    double squares = 0;
    for (std::size_t i = 0; i < n; ++i) squares += double{x[i]} * x[i];
    const double inverse = 1 / std::sqrt(squares / static_cast<double>(n) + double{kEpsilon});
    kernels().rms_norm(x.data(), weight.data(), kEpsilon, out.data(), n);
    for (std::size_t i = 0; i < n; ++i) {
      const double wanted = x[i] * inverse * weight[i];
      // The root halves the error of the sum; mean, epsilon, root, division, two products.
      ASSERT_LE(std::fabs(out[i] - wanted),
                (static_cast<double>(n) / 2 + 6) * kUnit * std::fabs(wanted));
    }
  }
}

TEST_P(Vectors, RmsNormWorksInPlace) {
  Guarded<float> x(37);
  Guarded<float> weight(37);
  Guarded<float> out(37);
  fill(x, 1);
  fill(weight, 2);
  kernels().rms_norm(x.data(), weight.data(), 1e-5F, out.data(), 37);
  kernels().rms_norm(x.data(), weight.data(), 1e-5F, x.data(), 37);
  EXPECT_TRUE(x.same_bytes(out));
}

TEST_P(Vectors, SiluMulFollowsItsDefinition) {
  for (const std::size_t n : kSizes) {
    Guarded<float> gate(n);
    Guarded<float> up(n);
    fill(gate, n);
    fill(up, n + 1);
    for (std::size_t i = 0; i < n; ++i) gate[i] *= 30;
    const std::vector<float> before(gate.data(), gate.data() + n);
    kernels().silu_mul(gate.data(), up.data(), n);
    for (std::size_t i = 0; i < n; ++i) {
      const double wanted = before[i] / (1 + std::exp(-double{before[i]})) * up[i];
      // exp 4 u, sum, quotient, product; below -88.7 exp overflows and the result is zero.
      ASSERT_LE(std::fabs(gate[i] - wanted), 7 * kUnit * std::fabs(wanted) + 1e-36)
          << "silu(" << before[i] << ")";
    }
  }
}

TEST_P(Vectors, SiluOfNanIsNan) {
  Guarded<float> gate(19);
  Guarded<float> up(19);
  fill(up, 1);
  std::fill(gate.data(), gate.data() + 19, 1.0F);
  gate[3] = gate[18] = kNan;
  kernels().silu_mul(gate.data(), up.data(), 19);
  for (std::size_t i = 0; i < 19; ++i) EXPECT_EQ(std::isnan(gate[i]), i == 3 || i == 18) << i;
}

TEST_P(Vectors, SiluOfTheExtremesIsItsLimit) {
  Guarded<float> gate(2);
  Guarded<float> up(2);
  up[0] = up[1] = 1;
  gate[0] = kInfinity;
  gate[1] = -1000;
  kernels().silu_mul(gate.data(), up.data(), 2);
  EXPECT_EQ(gate[0], kInfinity);
  EXPECT_EQ(gate[1], 0.0F);
}

TEST_P(Vectors, SoftmaxFollowsItsDefinition) {
  for (const std::size_t n : kSizes) {
    if (n == 0) continue;
    Guarded<float> x(n);
    fill(x, n);
    for (std::size_t i = 0; i < n; ++i) x[i] *= 4;
    const std::vector<float> before(x.data(), x.data() + n);
    const double largest = *std::max_element(before.begin(), before.end());
    double sum = 0;
    double reach = 0;
    for (const float v : before) {
      sum += std::exp(v - largest);
      reach = std::max(reach, largest - v);
    }
    kernels().softmax(x.data(), n);
    for (std::size_t i = 0; i < n; ++i) {
      const double wanted = std::exp(before[i] - largest) / sum;
      // The rounding of x - max moves exp by its magnitude; exp 4 u; both again in the sum.
      const double bound = (2 * reach + 10 + static_cast<double>(n)) * kUnit;
      ASSERT_LE(std::fabs(x[i] - wanted), bound * wanted) << "n " << n << " i " << i;
    }
  }
}

// Beside one element 0, elements below -21 leave the sum at 1: softmax shows exp itself.
TEST_P(Vectors, ExpIsWithinTwoUlpDownToTheSmallestSubnormal) {
  constexpr std::size_t kElements = 16;
  Guarded<float> x(kElements);
  std::vector<float> arguments(kElements);
  float next = -21.0F;
  while (next > -110.0F) {
    for (float& argument : arguments) {
      argument = next;
      next -= 0.00173F;
    }
    arguments[5] = 0;
    std::copy(arguments.begin(), arguments.end(), x.data());
    kernels().softmax(x.data(), kElements);
    for (std::size_t i = 0; i < kElements; ++i) {
      const double wanted = std::exp(double{arguments[i]});
      const double ulp = std::max(std::ldexp(1.0, std::ilogb(wanted) - 23), 0x1p-149);
      ASSERT_LE(std::fabs(x[i] - wanted), 2 * ulp) << "exp(" << arguments[i] << ")";
    }
  }
}

TEST_P(Vectors, SoftmaxGivesMaskedElementsNothing) {
  for (const std::size_t n : {2, 9, 17, 40}) {
    Guarded<float> x(n);
    std::fill(x.data(), x.data() + n, -kInfinity);
    x[0] = 3;
    x[n - 1] = 3;
    kernels().softmax(x.data(), n);
    for (std::size_t i = 0; i < n; ++i) EXPECT_EQ(x[i], i == 0 || i == n - 1 ? 0.5F : 0.0F);
  }
}

TEST_P(Vectors, SoftmaxOfNanIsNanEverywhere) {
  for (const std::size_t bad : {0, 5, 20}) {
    Guarded<float> x(21);
    fill(x, 3);
    x[bad] = kNan;
    kernels().softmax(x.data(), 21);
    for (std::size_t i = 0; i < 21; ++i) EXPECT_TRUE(std::isnan(x[i])) << bad << " " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, Vectors, ::testing::ValuesIn(testing::isas_here()),
                         testing::isa_name);

}  // namespace
}  // namespace winnow::kernels::vectors_test

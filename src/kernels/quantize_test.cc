// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "base/rng.h"
#include "kernels/testing.h"

namespace winnow::kernels::quantize_test {
namespace {

using testing::Guarded;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// The int8 form of n values, made by one ISA in guarded memory.
struct Quantized {
  Quantized(const Kernels& kernels, const std::vector<float>& values)
      : codes(values.size()),
        scales(values.size() / kActivationBlock),
        sums(values.size() / kActivationSumGroup) {
    Guarded<float> x(values.size());
    std::copy(values.begin(), values.end(), x.data());
    kernels.quantize_activations(x.data(), values.size(), codes.data(), scales.data(), sums.data());
  }
  Guarded<std::int8_t> codes;
  Guarded<float> scales;
  Guarded<std::int32_t> sums;
};

std::vector<float> random_values(std::size_t n, double magnitude, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> values(n);
  for (float& v : values) v = static_cast<float>(magnitude * rng.normal());
  return values;
}

class QuantizeActivations : public ::testing::TestWithParam<const Kernels*> {
 protected:
  void expect_same_bits_as_the_reference(const std::vector<float>& values) {
    Quantized reference(*select_reference(), values);
    Quantized fast(*GetParam(), values);
    EXPECT_TRUE(fast.codes.same_bytes(reference.codes));
    EXPECT_TRUE(fast.scales.same_bytes(reference.scales));
    EXPECT_TRUE(fast.sums.same_bytes(reference.sums));
  }
  static const Kernels* select_reference() { return &select_kernels("scalar", os::CpuFeatures(0)); }
};

TEST_P(QuantizeActivations, AgreesWithTheReferenceBitForBitAtEveryMagnitude) {
  for (const double magnitude : {1e-45, 1e-39, 1e-37, 1e-36, 1e-20, 1e-3, 1.0, 300.0, 1e30, 1e37}) {
    for (const std::size_t n : {0, 32, 64, 96, 1024}) {
      SCOPED_TRACE(magnitude);
      expect_same_bits_as_the_reference(random_values(n, magnitude, n + 1));
    }
  }
}

TEST_P(QuantizeActivations, RoundsTiesToTheEvenCode) {
  std::vector<float> values(32, 0.0F);
  values[0] = 127;  // scale 1
  values[1] = 0.5F;
  values[2] = 1.5F;
  values[3] = 2.5F;
  values[4] = -2.5F;
  values[5] = -3.5F;
  Quantized q(*GetParam(), values);
  EXPECT_EQ(q.scales[0], 1.0F);
  EXPECT_EQ((std::vector<int>(q.codes.data(), q.codes.data() + 6)),
            (std::vector<int>{127, 0, 2, 2, -2, -4}));
  EXPECT_EQ(q.sums[0], 125);
  EXPECT_EQ(q.sums[1], 0);
}

TEST_P(QuantizeActivations, StaysWithinHalfAStepAndSumsItsCodes) {
  const auto values = random_values(4096, 3.0, 7);
  Quantized q(*GetParam(), values);
  std::vector<std::int32_t> sums(q.sums.size());
  for (std::size_t j = 0; j < values.size(); ++j) {
    const double scale = q.scales[j / kActivationBlock];
    // The quotient is rounded once in f32: 127 u of a step beside the half.
    ASSERT_LE(std::fabs(values[j] - scale * q.codes[j]), scale * (0.5 + 128 * testing::kUnit));
    sums[j / kActivationSumGroup] += q.codes[j];
  }
  EXPECT_EQ(sums, (std::vector<std::int32_t>(q.sums.data(), q.sums.data() + q.sums.size())));
}

TEST_P(QuantizeActivations, ABlockOfZerosHasScaleZero) {
  std::vector<float> values(32, 0.0F);
  values[3] = -0.0F;
  Quantized q(*GetParam(), values);
  EXPECT_EQ(q.scales[0], 0.0F);
  EXPECT_EQ(q.codes[3], 0);
  expect_same_bits_as_the_reference(values);
}

TEST_P(QuantizeActivations, MarksABlockWithANonFiniteValueByItsScale) {
  for (const float bad : {kInfinity, -kInfinity, kNan, -kNan}) {
    auto values = random_values(96, 1.0, 3);
    values[37] = bad;
    Quantized q(*GetParam(), values);
    EXPECT_FALSE(std::isnan(q.scales[0]));
    EXPECT_TRUE(std::isnan(q.scales[1]));
    EXPECT_FALSE(std::isnan(q.scales[2]));
    EXPECT_EQ(q.codes[32], 0);
    EXPECT_EQ(q.sums[2], 0);
    expect_same_bits_as_the_reference(values);
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, QuantizeActivations, ::testing::ValuesIn(testing::isas_here()),
                         testing::isa_name);

}  // namespace
}  // namespace winnow::kernels::quantize_test

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Speeds cannot be asserted on an unknown, busy machine; these catch what the compiler may do to a
// measuring loop: take it out, or take the work out of it.
#include "kernels/machine_rates.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>

#include "base/rng.h"
#include "kernels/testing.h"

namespace winnow::kernels::machine_rates_test {
namespace {

class Int8Probe : public ::testing::TestWithParam<const Kernels*> {};

double seconds(const Kernels& kernels, std::uint64_t steps) {
  double best = 1e9;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    kernels.int8_probe(steps);
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

TEST_P(Int8Probe, CountsInProportionToTheSteps) {
  const std::uint64_t one = GetParam()->int8_probe(1);
  EXPECT_GE(one, 2U);
  EXPECT_EQ(GetParam()->int8_probe(1000), 1000 * one);
}

TEST_P(Int8Probe, IsNoFasterThanAnyProcessor) {
  // A core begins at most four 512-bit dot products (512 operations) per cycle at less than 7 GHz.
  constexpr double kImpossible = 4 * 512 * 7e9;
  constexpr std::uint64_t kSteps = 1 << 18;
  const auto operations = static_cast<double>(GetParam()->int8_probe(kSteps));
  const double rate = operations / seconds(*GetParam(), kSteps);
  EXPECT_LT(rate, kImpossible);
  EXPECT_GT(rate, 1e7);
}

INSTANTIATE_TEST_SUITE_P(Isas, Int8Probe, ::testing::ValuesIn(testing::isas_here()),
                         testing::isa_name);

class ReadProbe : public ::testing::TestWithParam<const Kernels*> {};

TEST_P(ReadProbe, AddsUpEveryWordOnce) {
  constexpr std::size_t kSize = 64 << 10;
  const os::AlignedBuffer buffer(kSize, os::Pages::kSmall);
  Rng rng(5);
  std::uint64_t expected = 0;
  for (std::size_t i = 0; i < kSize; i += sizeof expected) {
    const std::uint64_t word = rng.next();
    std::memcpy(buffer.data() + i, &word, sizeof word);
    expected += word;
  }
  EXPECT_EQ(GetParam()->read_probe(buffer.data(), kSize), expected);
  // Any one word counts once, wherever it is.
  for (const std::size_t at : {std::size_t{0}, kSize / 4 - 8, kSize / 2, kSize - 8}) {
    std::memset(buffer.data(), 0, kSize);
    const std::uint64_t one = 1;
    std::memcpy(buffer.data() + at, &one, sizeof one);
    EXPECT_EQ(GetParam()->read_probe(buffer.data(), kSize), 1U) << at;
  }
  EXPECT_EQ(GetParam()->read_probe(buffer.data(), 0), 0U);
}

INSTANTIATE_TEST_SUITE_P(Isas, ReadProbe, ::testing::ValuesIn(testing::isas_here()),
                         testing::isa_name);

TEST(MeasureReadRate, GivesARateThatAMemoryCanHave) {
  const Kernels& kernels = *testing::isas_here().front();
  os::ThreadPool pool(2);
  for (const os::Pages pages : {os::Pages::kHuge, os::Pages::kSmall}) {
    const double rate = measure_read_rate(kernels, pool, Bytes{64 << 20}, pages);
    EXPECT_GT(rate, 1e7);
    EXPECT_LT(rate, 1e13);  // beyond any cache's
  }
}

TEST(ReadRateSize, TakesAQuarterOfWhatIsThereUpToOneGibibyte) {
  EXPECT_EQ(read_rate_size(Bytes{std::uint64_t{64} << 30}).value, std::uint64_t{1} << 30);
  EXPECT_EQ(read_rate_size(Bytes{std::uint64_t{2} << 30}).value, std::uint64_t{512} << 20);
  EXPECT_EQ(read_rate_size(Bytes{0}).value, std::uint64_t{64} << 20);
}

}  // namespace
}  // namespace winnow::kernels::machine_rates_test

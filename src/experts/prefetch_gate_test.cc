// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/prefetch_gate.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "experts/read_rate.h"

namespace winnow::experts::prefetch_gate_test {
namespace {

/// Layers of one second, the disk busy for `busy` of it, guesses right with `precision`.
PrefetchGate gate_after(double busy, double precision, std::size_t layers = 1000,
                        std::size_t ranks = 4) {
  PrefetchGate gate(ranks);
  Rng rng(3);
  for (std::size_t i = 0; i < layers; ++i) {
    gate.observe_layer(1, busy);
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      gate.observe_guess(rank, rng.uniform() < precision);
    }
  }
  return gate;
}

TEST(PrefetchGate, AllowsNothingOnADiskThatIsAlwaysBusy) {
  EXPECT_EQ(gate_after(1, 0.99).allowed(0.1), 0U);
  EXPECT_EQ(gate_after(1.7, 0.99).allowed(0.1), 0U);
  EXPECT_EQ(gate_after(1, 0.99).busy_share(), 1);
}

TEST(PrefetchGate, AllowsWhatFitsIntoTheIdleTime) {
  // 0.5 s are idle: five reads of 0.1 s, and four guesses.
  EXPECT_EQ(gate_after(0.5, 0.9).allowed(0.1), 4U);
  // Two of 0.2 s; of the third, half is hidden (f = 0.5): u / (u + f) = 0.5 < 0.9.
  EXPECT_EQ(gate_after(0.5, 0.9).allowed(0.2), 3U);
  EXPECT_EQ(gate_after(0.5, 0.4).allowed(0.2), 2U);
}

TEST(PrefetchGate, AsksMoreOfGuessesTheBusierTheDiskIs) {
  // u = 0.8, all of a read of 0.2 s is hidden: 0.8 / 1.8 = 0.44.
  EXPECT_EQ(gate_after(0.8, 0.35).allowed(0.2), 0U);
  EXPECT_EQ(gate_after(0.8, 0.55).allowed(0.19), 1U);
  EXPECT_EQ(gate_after(0.1, 0.35).allowed(0.2), 4U);
}

TEST(PrefetchGate, WaitsUntilEnoughHasBeenSeen) {
  EXPECT_EQ(gate_after(0.1, 1, 10).allowed(0.1), 0U);
  EXPECT_EQ(PrefetchGate(4).allowed(0.1), 0U);
  EXPECT_EQ(gate_after(0.1, 1).allowed(0), 0U) << "a read that takes no time";
}

TEST(PrefetchGate, ForgetsWhatWasLongAgo) {
  PrefetchGate gate = gate_after(0.1, 1, 2000);
  EXPECT_EQ(gate.allowed(0.1), 4U);
  for (int i = 0; i < 4000; ++i) {
    gate.observe_layer(1, 0.1);
    for (std::size_t rank = 0; rank < 4; ++rank) gate.observe_guess(rank, false);
  }
  EXPECT_LT(gate.precision(0), 0.01);
  EXPECT_EQ(gate.allowed(0.1), 0U);
}

TEST(ReadRate, IsThatOfReadsThatWereWaitedFor) {
  using std::chrono::milliseconds;
  ReadRate rate;
  const ReadRate::Clock::time_point start;
  EXPECT_EQ(rate.bytes_per_second(), 0);
  rate.begin(600, true, start);
  rate.begin(400, false, start + milliseconds(100));
  rate.end(true, start + milliseconds(500));
  EXPECT_DOUBLE_EQ(rate.bytes_per_second(), 2000);
  // Nobody looked until long after: it says nothing.
  rate.begin(1000, true, start);
  rate.end(false, start + milliseconds(5000));
  EXPECT_DOUBLE_EQ(rate.bytes_per_second(), 2000);
  // It was there earlier than that.
  rate.begin(1000, true, start);
  rate.end(false, start + milliseconds(250));
  EXPECT_DOUBLE_EQ(rate.bytes_per_second(), 4000);
  for (int i = 0; i < 200; ++i) {
    rate.begin(1500, true, start);
    rate.take_back(500);
    rate.end(true, start + milliseconds(1000));
  }
  EXPECT_NEAR(rate.bytes_per_second(), 1000, 1);
}

}  // namespace
}  // namespace winnow::experts::prefetch_gate_test

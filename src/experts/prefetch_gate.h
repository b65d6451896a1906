// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Whether it pays to read what a predictor names. A right guess saves the share f of its read that
// is hidden behind other work; a wrong one holds back what is needed for the share u of the time in
// which the disk is busy without guesses. So a guess that is right with probability p pays if
// p f > (1 - p) u, that is if p > u / (u + f). On a disk that is always busy nothing pays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace winnow::experts {

class PrefetchGate {
 public:
  /// Guesses of a layer are ranked, the likeliest first; ranks from `ranks` on are never read.
  explicit PrefetchGate(std::size_t ranks) : ranks_(ranks) {}

  /// From one layer's request to the next one's so many seconds passed, of which the disk was busy
  /// with what was needed (more than all when it was not done in time).
  void observe_layer(double seconds, double busy_seconds);
  /// Whether an absent expert that was guessed was then needed. Guesses count whether or not they
  /// were read.
  void observe_guess(std::size_t rank, bool right);

  /// How many of the first guesses to read, each taking the disk so many seconds. None before
  /// enough of them have been judged.
  std::size_t allowed(double read_seconds) const;

  /// u: of the disk's time, 0 to 1.
  double busy_share() const;
  /// Probability that a guess of this rank is right.
  double precision(std::size_t rank) const;

 private:
  /// Recent ones count most: all are halved once there are many.
  struct Rank {
    double judged = 0;
    double right = 0;
  };
  std::vector<Rank> ranks_;
  double layers_ = 0, seconds_ = 0, busy_ = 0, idle_ = 0;  // likewise
};

}  // namespace winnow::experts

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/prefetch_gate.h"

#include <algorithm>

namespace winnow::experts {
namespace {

constexpr double kFewestJudged = 64;
constexpr double kFewestLayers = 64;
constexpr double kMany = 512;

}  // namespace

void PrefetchGate::observe_layer(double seconds, double busy_seconds) {
  if (layers_ >= kMany) {
    for (double* sum : {&layers_, &seconds_, &busy_, &idle_}) *sum /= 2;
  }
  ++layers_;
  seconds_ += seconds;
  busy_ += std::min(busy_seconds, seconds);
  idle_ += std::max(seconds - busy_seconds, 0.0);
}

void PrefetchGate::observe_guess(std::size_t rank, bool right) {
  if (rank >= ranks_.size()) return;
  Rank& counts = ranks_[rank];
  if (counts.judged >= kMany) counts = {counts.judged / 2, counts.right / 2};
  ++counts.judged;
  counts.right += right ? 1 : 0;
}

double PrefetchGate::busy_share() const { return seconds_ == 0 ? 1 : busy_ / seconds_; }

double PrefetchGate::precision(std::size_t rank) const {
  const Rank& counts = ranks_[rank];
  return counts.judged == 0 ? 0 : counts.right / counts.judged;
}

std::size_t PrefetchGate::allowed(double read_seconds) const {
  if (layers_ < kFewestLayers || read_seconds <= 0) return 0;
  const double idle = idle_ / layers_;
  const double u = busy_share();
  std::size_t count = 0;
  for (; count < ranks_.size(); ++count) {
    const double left = idle - static_cast<double>(count) * read_seconds;
    const double f = std::clamp(left / read_seconds, 0.0, 1.0);
    const bool judged = ranks_[count].judged >= kFewestJudged;
    if (!judged || f == 0 || precision(count) <= u / (u + f)) break;
  }
  return count;
}

}  // namespace winnow::experts

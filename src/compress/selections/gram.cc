// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The set whose removal costs least. Zeroing the experts of a set with indicator p, all weights of
// the router as they are, changes the layer's output by exactly p^T G p in squared norm, G the Gram
// matrix of the experts' weighted outputs: interactions count, which no score of single experts
// sees. The set grows by the cheapest expert, then exchanges are made while one lowers the cost.
#include <cmath>

#include "compress/expert_selection.h"

namespace winnow::compress {
namespace {

constexpr double kLeastGain = 1e-12;  // of the cost

class RemovedSet {
 public:
  RemovedSet(std::vector<double> gram, const std::vector<bool>& is_protected)
      : gram_(std::move(gram)), is_protected_(is_protected), size_(is_protected.size()) {
    removed_.resize(size_);
    coupling_.resize(size_);
  }

  void grow() {
    std::size_t best = size_;
    for (std::size_t e = 0; e < size_; ++e) {
      if (!may_go(e)) continue;
      if (best == size_ || growth(e) < growth(best)) best = e;
    }
    if (best == size_) return;
    cost_ += growth(best);
    flip(best, 1);
  }

  /// False when no exchange lowers the cost.
  bool exchange() {
    double least = -kLeastGain * std::fabs(cost_);
    std::size_t from = size_;
    std::size_t to = size_;
    for (std::size_t e = 0; e < size_; ++e) {
      for (std::size_t other = 0; removed_[e] && other < size_; ++other) {
        if (!may_go(other)) continue;
        const double change = at(e, e) - 2 * coupling_[e] + growth(other) - 2 * at(e, other);
        if (!(change < least)) continue;
        least = change;
        from = e;
        to = other;
      }
    }
    if (from == size_) return false;
    flip(from, -1);
    flip(to, 1);
    cost_ += least;
    return true;
  }

  std::vector<ExpertId> kept() const {
    std::vector<ExpertId> result;
    for (std::uint32_t e = 0; e < size_; ++e) {
      if (!removed_[e]) result.push_back(ExpertId{e});
    }
    return result;
  }

 private:
  double at(std::size_t i, std::size_t j) const { return gram_[i * size_ + j]; }
  bool may_go(std::size_t e) const { return !removed_[e] && !is_protected_[e]; }
  /// What removing e as well adds.
  double growth(std::size_t e) const { return at(e, e) + 2 * coupling_[e]; }
  void flip(std::size_t e, double sign) {
    removed_[e] = sign > 0;
    for (std::size_t i = 0; i < size_; ++i) coupling_[i] += sign * at(i, e);
  }

  std::vector<double> gram_;
  const std::vector<bool>& is_protected_;
  std::size_t size_;
  std::vector<bool> removed_;
  std::vector<double> coupling_;  // (G p)_i
  double cost_ = 0;
};

std::vector<ExpertId> select(const SelectionContext& context, std::size_t keep) {
  const std::size_t experts = context.num_experts();
  RemovedSet set(context.sums("output_gram", experts * experts), context.is_protected);
  for (std::size_t i = keep; i < experts; ++i) set.grow();
  while (set.exchange()) continue;
  return set.kept();
}

}  // namespace

extern const ExpertSelection kGram{"gram", "exact error of a set, after NAEE, arXiv:2402.14800",
                                   true, select};

}  // namespace winnow::compress

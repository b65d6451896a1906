// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Stage 1 of STUN, from the router alone: experts with rows that are close to each other behave
// alike. Clusters are joined, the closest two first (by the farthest pair of their members), until
// `keep` are left; of each stays the member whose weights are nearest to the cluster's mean.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "compress/expert_selection.h"

namespace winnow::compress {
namespace {

using model::Role;
using Cluster = std::vector<std::size_t>;  // members, rising

class Clusters {
 public:
  explicit Clusters(const SelectionContext& context) : context_(context) {
    const model::TensorRef router = context.source.at(Role::kRouter, context.layer);
    rows_ = tensor::Matrix<float>(router.rows, router.cols);
    context.source.read_floats(router, 0, router.rows, rows_.flat());
    for (std::size_t e = 0; e < router.rows; ++e) clusters_.push_back({e});
  }

  std::vector<ExpertId> select(std::size_t keep) {
    while (count_kept() > keep && clusters_.size() > 1) join_closest();
    std::vector<ExpertId> kept;
    for (const Cluster& cluster : clusters_) {
      for (const std::size_t member : representatives(cluster)) {
        kept.push_back(ExpertId{static_cast<std::uint32_t>(member)});
      }
    }
    std::sort(kept.begin(), kept.end());
    return kept;
  }

 private:
  bool is_protected(std::size_t member) const { return context_.is_protected[member]; }
  std::size_t protected_of(const Cluster& cluster) const {
    return static_cast<std::size_t>(std::count_if(
        cluster.begin(), cluster.end(), [&](std::size_t member) { return is_protected(member); }));
  }
  std::size_t count_kept() const {
    std::size_t count = 0;
    for (const Cluster& cluster : clusters_) {
      count += std::max<std::size_t>(1, protected_of(cluster));
    }
    return count;
  }

  double distance(std::size_t a, std::size_t b) const {
    double sum = 0;
    for (std::size_t j = 0; j < rows_.cols(); ++j) {
      const double difference = double{rows_.row(a)[j]} - rows_.row(b)[j];
      sum += difference * difference;
    }
    return std::sqrt(sum);
  }
  /// Of the farthest pair.
  double distance(const Cluster& a, const Cluster& b) const {
    double farthest = 0;
    for (const std::size_t i : a) {
      for (const std::size_t j : b) farthest = std::max(farthest, distance(i, j));
    }
    return farthest;
  }

  /// Clusters stay in the order of their first members, so the first pair wins ties.
  void join_closest() {
    double least = std::numeric_limits<double>::infinity();
    std::pair<std::size_t, std::size_t> closest;
    for (std::size_t a = 0; a < clusters_.size(); ++a) {
      for (std::size_t b = a + 1; b < clusters_.size(); ++b) {
        const double apart = distance(clusters_[a], clusters_[b]);
        if (!(apart < least)) continue;
        least = apart;
        closest = {a, b};
      }
    }
    Cluster& target = clusters_[closest.first];
    const auto source = clusters_.begin() + static_cast<std::ptrdiff_t>(closest.second);
    target.insert(target.end(), source->begin(), source->end());
    std::sort(target.begin(), target.end());
    clusters_.erase(source);
  }

  /// All members that have to stay, or the one nearest to the mean.
  Cluster representatives(const Cluster& cluster) const {
    Cluster kept;
    for (const std::size_t member : cluster) {
      if (is_protected(member)) kept.push_back(member);
    }
    if (!kept.empty() || cluster.size() == 1) return kept.empty() ? cluster : kept;
    return {nearest_to_mean(cluster)};
  }

  std::size_t nearest_to_mean(const Cluster& cluster) const {
    std::vector<double> squares(cluster.size());
    for (const Role role : {Role::kExpertGateProj, Role::kExpertUpProj, Role::kExpertDownProj}) {
      const model::TensorRef first = context_.source.at(role, context_.layer, ExpertId{0});
      for (std::size_t r = 0; r < first.rows; ++r) add_row(cluster, role, r, first.cols, squares);
    }
    // Two members are equally far from their mean, whatever rounding says.
    const double least = *std::min_element(squares.begin(), squares.end()) * (1 + 1e-12);
    const auto nearest = std::find_if(squares.begin(), squares.end(),
                                      [&](double square) { return square <= least; });
    return cluster[static_cast<std::size_t>(nearest - squares.begin())];
  }

  /// Adds squared distances to the members' mean in one row of a matrix.
  void add_row(const Cluster& cluster, Role role, std::size_t row, std::size_t cols,
               std::vector<double>& squares) const {
    tensor::Matrix<float> values(cluster.size(), cols);
    std::vector<double> mean(cols);
    for (std::size_t i = 0; i < cluster.size(); ++i) {
      const ExpertId expert{static_cast<std::uint32_t>(cluster[i])};
      context_.source.read_floats(context_.source.at(role, context_.layer, expert), row, 1,
                                  values.row(i));
      for (std::size_t j = 0; j < cols; ++j) {
        mean[j] += double{values.row(i)[j]} / static_cast<double>(cluster.size());
      }
    }
    for (std::size_t i = 0; i < cluster.size(); ++i) {
      for (std::size_t j = 0; j < cols; ++j) {
        const double difference = values.row(i)[j] - mean[j];
        squares[i] += difference * difference;
      }
    }
  }

  const SelectionContext& context_;
  tensor::Matrix<float> rows_;  // of the router
  std::vector<Cluster> clusters_;
};

}  // namespace

extern const ExpertSelection kStun{"stun", "STUN, arXiv:2409.06211", false,
                                   [](const SelectionContext& context, std::size_t keep) {
                                     return Clusters(context).select(keep);
                                   }};

}  // namespace winnow::compress

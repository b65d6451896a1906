// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/narrowing.h"

#include <algorithm>
#include <functional>
#include <set>
#include <utility>

#include "base/error.h"

namespace winnow::compress {
namespace {

constexpr std::uint32_t kChannelBlock = 32;
constexpr std::uint32_t kSuperBlock = 256;  // of the K and IQ types

tensor::Matrix<double> transposed(const tensor::Matrix<double>& matrix) {
  tensor::Matrix<double> result(matrix.cols(), matrix.rows());
  for (std::size_t i = 0; i < matrix.rows(); ++i) {
    for (std::size_t j = 0; j < matrix.cols(); ++j) result.row(j)[i] = matrix.row(i)[j];
  }
  return result;
}

/// Some rows and columns.
tensor::Matrix<double> part_of(const Hessian& hessian, std::span<const std::uint32_t> rows,
                               std::span<const std::uint32_t> cols, double ridge = 0) {
  tensor::Matrix<double> part(rows.size(), cols.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t j = 0; j < cols.size(); ++j) {
      part.row(i)[j] = hessian.at(rows[i], cols[j]) + (rows[i] == cols[j] ? ridge : 0);
    }
  }
  return part;
}

/// Of the matrix with a ridge as large as it takes.
tensor::Matrix<double> inverse_of(const Hessian& hessian, double damping) {
  tensor::Matrix<double> identity(hessian.size(), hessian.size());
  for (std::size_t i = 0; i < hessian.size(); ++i) identity.row(i)[i] = 1;
  for (;; damping *= 10) {
    require_factor(damping);
    const tensor::Matrix<double> h = hessian.dense(ridge_of(hessian, damping));
    auto inverse = solve_symmetric(h.view(), std::as_const(identity).view());
    if (inverse) return std::move(*inverse);
  }
}

/// W^T W: the Gram matrix of the rows of W.
Hessian gram_of(ConstMatrix weights, const Workers& workers) {
  Hessian gram(weights.cols);
  gram.add(weights, {}, workers.pool(), workers.kernels());
  return gram;
}

/// The two matrices of the removal, and what is left of them.
class Removal {
 public:
  Removal(const Hessian& gram, tensor::Matrix<double> inverse, os::ThreadPool& pool)
      : gram_(gram.dense()), inverse_(std::move(inverse)), pool_(pool), removed_(gram.size()) {
    WINNOW_CHECK(inverse_.rows() == gram.size());
  }

  ChannelRemoval remove_cheapest() {
    std::optional<ChannelRemoval> best;
    for (std::uint32_t j = 0; j < removed_.size(); ++j) {
      if (removed_[j]) continue;
      const double cost = gram_.row(j)[j] / inverse_.row(j)[j];
      if (!best || cost < best->cost) best = {j, cost};
    }
    remove(best->channel);
    return *best;
  }

 private:
  /// With p = row j of H^-1 over its diagonal: W loses w_j p^T, and H^-1 its row j times p^T.
  void remove(std::uint32_t j) {
    const std::size_t n = removed_.size();
    const double pivot = inverse_.row(j)[j];
    std::vector<double> p(inverse_.row(j).begin(), inverse_.row(j).end());
    for (double& value : p) value /= pivot;
    const std::vector<double> g(gram_.row(j).begin(), gram_.row(j).end());
    removed_[j] = true;
    const std::size_t parts = std::min<std::size_t>(n, pool_.size());
    pool_.run(parts, [&](std::size_t part, unsigned) {
      const os::Range range = os::split(n, parts, part);
      for (std::size_t i = range.begin; i < range.end; ++i) {
        if (removed_[i]) continue;
        double* const inverse = inverse_.row(i).data();
        double* const gram = gram_.row(i).data();
        const double of_inverse = p[i] * pivot;
        const double of_p = g[i] - p[i] * g[j];
        for (std::size_t c = 0; c < n; ++c) {
          inverse[c] -= of_inverse * p[c];
          gram[c] -= of_p * p[c] + p[i] * g[c];
        }
      }
    });
  }

  tensor::Matrix<double> gram_, inverse_;
  os::ThreadPool& pool_;
  std::vector<bool> removed_;
};

}  // namespace

std::vector<std::uint32_t> narrower_widths(std::uint32_t width) {
  std::set<std::uint32_t, std::greater<>> widths;
  if (width % kChannelBlock != 0) return {};
  for (const std::uint64_t share : {3 * std::uint64_t{width} / 4, std::uint64_t{width} / 2}) {
    for (const std::uint32_t block : {kChannelBlock, kSuperBlock}) {
      const auto narrower = static_cast<std::uint32_t>(share / block * block);
      if (narrower != 0) widths.insert(narrower);
    }
  }
  return {widths.begin(), widths.end()};
}

std::vector<ChannelRemoval> removal_order(const Hessian& gram, tensor::Matrix<double> inverse,
                                          std::size_t count, os::ThreadPool& pool) {
  WINNOW_CHECK(count <= gram.size());
  Removal removal(gram, std::move(inverse), pool);
  std::vector<ChannelRemoval> order;
  while (order.size() < count) order.push_back(removal.remove_cheapest());
  return order;
}

std::vector<std::uint32_t> other_channels(std::span<const std::uint32_t> some, std::size_t n) {
  std::vector<std::uint32_t> others;
  auto next = some.begin();
  for (std::uint32_t j = 0; j < n; ++j) {
    if (next != some.end() && *next == j) {
      ++next;
    } else {
      others.push_back(j);
    }
  }
  WINNOW_CHECK(next == some.end());
  return others;
}

tensor::Matrix<double> compensation(const Hessian& hessian, std::span<const std::uint32_t> kept,
                                    double damping) {
  const std::vector<std::uint32_t> removed = other_channels(kept, hessian.size());
  const tensor::Matrix<double> across = part_of(hessian, kept, removed);
  for (;; damping *= 10) {
    require_factor(damping);
    const tensor::Matrix<double> among = part_of(hessian, kept, kept, ridge_of(hessian, damping));
    auto solution = solve_symmetric(among.view(), across.view());
    if (solution) return std::move(*solution);
  }
}

tensor::Matrix<float> compensated(ConstMatrix weights, std::span<const std::uint32_t> kept,
                                  const tensor::Matrix<double>& shares, os::ThreadPool& pool) {
  const std::vector<std::uint32_t> removed = other_channels(kept, weights.cols);
  tensor::Matrix<float> result(weights.rows, kept.size());
  pool.run(weights.rows, [&](std::size_t r, unsigned) {
    const auto from = weights.row(r);
    std::vector<double> lost;
    lost.reserve(removed.size());
    for (const std::uint32_t channel : removed) lost.push_back(double{from[channel]});
    for (std::size_t j = 0; j < kept.size(); ++j) {
      const auto share = shares.row(j);
      double sum = from[kept[j]];
      for (std::size_t s = 0; s < lost.size(); ++s) sum += share[s] * lost[s];
      result.row(r)[j] = static_cast<float>(sum);
    }
  });
  return result;
}

double lost_share(const Hessian& gram, const Hessian& judge, std::span<const std::uint32_t> kept,
                  const tensor::Matrix<double>& shares) {
  const std::vector<std::uint32_t> removed = other_channels(kept, judge.size());
  double whole = 0;
  for (std::size_t i = 0; i < judge.size(); ++i) {
    for (std::size_t j = 0; j < judge.size(); ++j) whole += judge.at(i, j) * gram.at(i, j);
  }
  if (!(whole > 0) || removed.empty()) return 0;
  // D = W_S [I, -X^T], so the change is that of H_SS - X^T (H_KS - H_KK X) - H_SK X under W_S.
  const tensor::Matrix<double> across = part_of(judge, kept, removed);
  tensor::Matrix<double> rest = wide_product(part_of(judge, kept, kept).view(), shares.view());
  for (std::size_t i = 0; i < rest.flat().size(); ++i) {
    rest.flat()[i] = across.flat()[i] - rest.flat()[i];
  }
  const auto first = wide_product(transposed(shares).view(), std::as_const(rest).view());
  const auto second = wide_product(transposed(across).view(), shares.view());
  double change = 0;
  for (std::size_t a = 0; a < removed.size(); ++a) {
    for (std::size_t b = 0; b < removed.size(); ++b) {
      const double left = judge.at(removed[a], removed[b]) - first.row(a)[b] - second.row(a)[b];
      change += left * gram.at(removed[a], removed[b]);
    }
  }
  return std::max(change, 0.0) / whole;
}

double carried_share(const Hessian& gram, std::span<const std::uint32_t> kept,
                     const tensor::Matrix<double>& shares) {
  const std::vector<std::uint32_t> removed = other_channels(kept, gram.size());
  const tensor::Matrix<double> across = part_of(gram, kept, removed);
  const tensor::Matrix<double> added =
      wide_product(shares.view(), part_of(gram, removed, removed).view());
  double whole = 0;
  for (std::size_t j = 0; j < gram.size(); ++j) whole += gram.at(j, j);
  double carried = 0;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    carried += gram.at(kept[i], kept[i]);
    for (std::size_t s = 0; s < removed.size(); ++s) {
      carried += shares.row(i)[s] * (2 * across.row(i)[s] + added.row(i)[s]);
    }
  }
  return whole > 0 ? std::max(carried, 0.0) / whole : 1;
}

PreparedHessian of_own_tokens(const PreparedHessian& hessian, double pseudo_tokens) {
  const auto is_there = [](const Hessian* sums) { return sums != nullptr && sums->trace() > 0; };
  const auto& [calibration, held_out] = hessian.own();
  if (!is_there(calibration)) return PreparedHessian(hessian.calibration(), hessian.judge());
  return PreparedHessian(
      shrunk_towards(*calibration, calibration->of_inputs_apart(), pseudo_tokens),
      is_there(held_out) ? *held_out : *calibration);
}

PreparedHessian of_channels(const PreparedHessian& hessian, std::span<const std::uint32_t> kept) {
  std::optional<Hessian> judge;
  if (hessian.has_held_out()) judge = hessian.judge().of_some_inputs(kept);
  return PreparedHessian(hessian.calibration().of_some_inputs(kept), std::move(judge));
}

ChannelChooser::ChannelChooser(ConstMatrix down, const PreparedHessian& hessian, std::size_t least,
                               double damping, const Workers& workers)
    : gram_(gram_of(down, workers)),
      damping_(damping),
      order_(removal_order(gram_, inverse_of(hessian.calibration(), damping), down.cols - least,
                           workers.pool())) {}

NarrowedChannels ChannelChooser::choose(std::size_t width, const PreparedHessian& hessian) const {
  const std::size_t n = gram_.size();
  WINNOW_CHECK(width <= n && n - width <= order_.size());
  std::vector<std::uint32_t> removed;
  for (std::size_t i = 0; i < n - width; ++i) removed.push_back(order_[i].channel);
  std::sort(removed.begin(), removed.end());
  NarrowedChannels narrowed{{other_channels(removed, n)}, {}};
  ChannelChoice& choice = narrowed.choice;
  narrowed.shares = compensation(hessian.calibration(), choice.kept, damping_);
  choice.lost = lost_share(gram_, hessian.judge(), choice.kept, narrowed.shares);
  choice.carried = carried_share(gram_, choice.kept, narrowed.shares);
  choice.lost_elsewhere = lost_share(gram_, Hessian::identity(n), choice.kept, narrowed.shares);
  return narrowed;
}

}  // namespace winnow::compress

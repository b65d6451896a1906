// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Sums and Gram matrix of the router logits: cosines and covariances of experts' logits follow from
// them (M-SMoE groups experts by these, arXiv:2310.01334).
#include <algorithm>
#include <array>
#include <vector>

#include "compress/statistic.h"

namespace winnow::compress {
namespace {

class RouterLogits final : public StatisticCollector {
 public:
  explicit RouterLogits(const LayerContext& context)
      : kernels_(context.kernels),
        pool_(context.pool),
        experts_(context.spec.moe.num_experts),
        sums_(context.sums.add_sum("router_logit_sums", {experts_})),
        gram_(context.sums.add_sum("router_logit_gram", {experts_, experts_})) {}

  void on_routing(tensor::MatrixView<const float> logits,
                  const engine::RoutingView& /*routing*/) override {
    const std::size_t parts = std::min<std::size_t>(experts_, std::size_t{pool_.size()} * 4);
    pool_.run(parts, [&](std::size_t part, unsigned) {
      add_experts(os::split(experts_, parts, part), logits);
    });
    for (std::size_t e = 0; e < experts_; ++e) {  // the same products, added in the same order
      for (std::size_t other = 0; other < e; ++other) {
        gram_[other * experts_ + e] = gram_[e * experts_ + other];
      }
    }
  }

 private:
  /// Rows of the Gram matrix up to the diagonal, and sums, over stretches of tokens that stay in
  /// the first cache.
  void add_experts(os::Range experts, tensor::MatrixView<const float> logits) {
    constexpr std::size_t kTokens = 64;
    constexpr std::size_t kLanes = 16;  // of the widest vectors; columns beyond go one by one
    static constexpr auto kOnes = [] {
      std::array<double, kTokens> ones{};
      ones.fill(1.0);
      return ones;
    }();
    std::vector<double> weights(kTokens);
    const float* rows[kTokens];
    for (std::size_t first = 0; first < logits.rows; first += kTokens) {
      const std::size_t count = std::min(kTokens, logits.rows - first);
      for (std::size_t t = 0; t < count; ++t) rows[t] = logits.row(first + t).data();
      for (std::size_t e = experts.begin; e < experts.end; ++e) {
        for (std::size_t t = 0; t < count; ++t) weights[t] = double{rows[t][e]};
        const std::size_t columns = std::min<std::size_t>(experts_, (e / kLanes + 1) * kLanes);
        kernels_.column_products(rows, weights.data(), count, columns, &gram_[e * experts_]);
      }
      for (std::size_t t = 0; t < count; ++t) rows[t] += experts.begin;
      kernels_.column_products(rows, kOnes.data(), count, experts.size(), &sums_[experts.begin]);
    }
  }

  const kernels::Kernels& kernels_;
  os::ThreadPool& pool_;
  std::uint64_t experts_;
  std::span<double> sums_, gram_;
};

std::unique_ptr<StatisticCollector> make(const LayerContext& context) {
  if (!context.is_moe()) return nullptr;
  return std::make_unique<RouterLogits>(context);
}

}  // namespace

extern const StatisticFamily kRouterLogits{
    .name = "router_logits", .summary = "sums and Gram matrix of router logits", .make = make};

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Sums and Gram matrix of the router logits: cosines and covariances of experts' logits follow from
// them (M-SMoE groups experts by these, arXiv:2310.01334).
#include <vector>

#include "compress/column_sums.h"
#include "compress/statistic.h"

namespace winnow::compress {
namespace {

class RouterLogits final : public StatisticCollector {
 public:
  explicit RouterLogits(const LayerContext& context)
      : pool_(context.pool),
        experts_(context.spec.moe.num_experts),
        sums_(context.sums.add_sum("router_logit_sums", {experts_})),
        gram_(context.sums.add_sum("router_logit_gram", {experts_, experts_})) {}

  void on_routing(tensor::MatrixView<const float> logits,
                  const engine::RoutingView& /*routing*/) override {
    wide_.resize(logits.rows * experts_);
    for (std::size_t t = 0; t < logits.rows; ++t) {
      for (std::size_t e = 0; e < experts_; ++e) {
        wide_[t * experts_ + e] = double{logits.row(t)[e]};
        sums_[e] += double{logits.row(t)[e]};
      }
    }
    const std::size_t parts = std::min<std::size_t>(experts_, std::size_t{pool_.size()} * 4);
    pool_.run(parts, [&](std::size_t part, unsigned) {
      const os::Range rows = os::split(experts_, parts, part);
      for (std::size_t t = 0; t < logits.rows; ++t) {
        const auto row = std::span<const double>(wide_).subspan(t * experts_, experts_);
        for (std::size_t e = rows.begin; e < rows.end; ++e) {
          add_scaled(row, row[e], &gram_[e * experts_]);
        }
      }
    });
  }

 private:
  os::ThreadPool& pool_;
  std::uint64_t experts_;
  std::span<double> sums_, gram_;
  std::vector<double> wide_;
};

std::unique_ptr<StatisticCollector> make(const LayerContext& context) {
  if (!context.is_moe()) return nullptr;
  return std::make_unique<RouterLogits>(context);
}

}  // namespace

extern const StatisticFamily kRouterLogits{
    .name = "router_logits", .summary = "sums and Gram matrix of router logits", .make = make};

}  // namespace winnow::compress

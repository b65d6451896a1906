// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Sums and Gram matrix of the router logits: cosines and covariances of experts' logits follow from
// them (M-SMoE groups experts by these, arXiv:2310.01334).
#include <vector>

#include "compress/expert_columns.h"
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
    const std::size_t tokens = logits.rows;
    transposed_.resize(experts_ * tokens);
    for (std::size_t t = 0; t < tokens; ++t) {
      for (std::size_t e = 0; e < experts_; ++e) {
        transposed_[e * tokens + t] = double{logits.row(t)[e]};
        sums_[e] += double{logits.row(t)[e]};
      }
    }
    const std::size_t parts = std::min<std::size_t>(experts_, std::size_t{pool_.size()} * 4);
    pool_.run(parts, [&](std::size_t part, unsigned) {
      const os::Range range = os::split(experts_, parts, part);
      for_row_stretches(
          {0, tokens}, experts_, [&](std::size_t t) { return logits.row(t).data(); },
          [&](const float* const* rows, std::size_t first, std::size_t count) {
            for (std::size_t e = range.begin; e < range.end; ++e) {
              kernels_.column_products(rows, &transposed_[e * tokens + first], count, experts_,
                                       &gram_[e * experts_]);
            }
          });
    });
  }

 private:
  const kernels::Kernels& kernels_;
  os::ThreadPool& pool_;
  std::uint64_t experts_;
  std::span<double> sums_, gram_;
  std::vector<double> transposed_;  // logits [num_experts, tokens]
};

std::unique_ptr<StatisticCollector> make(const LayerContext& context) {
  if (!context.is_moe()) return nullptr;
  return std::make_unique<RouterLogits>(context);
}

}  // namespace

extern const StatisticFamily kRouterLogits{
    .name = "router_logits", .summary = "sums and Gram matrix of router logits", .make = make};

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Sums of the experts' outputs: divided by hits, the vector that could stand in for an expert; the
// one weighted with the squared router weight is the best single constant in the least-squares
// sense.
#include "compress/column_sums.h"
#include "compress/expert_columns.h"
#include "compress/statistic.h"

namespace winnow::compress {
namespace {

class MeanOutputs final : public StatisticCollector {
 public:
  explicit MeanOutputs(const LayerContext& context)
      : pool_(context.pool),
        width_(context.spec.hidden_size),
        sums_(context.sums.add_sum("output_sums", {context.spec.moe.num_experts, width_})),
        gated_(context.sums.add_sum("gated_output_sums", {context.spec.moe.num_experts, width_})) {}

  void on_experts(const engine::ExpertSlots& slots) override {
    for_expert_columns(
        pool_, slots, width_, [&](std::size_t expert, os::Range rows, os::Range columns) {
          const std::size_t at = expert * width_ + columns.begin;
          for (std::size_t s = rows.begin; s < rows.end; ++s) {
            const auto x = slots.outputs.row(s).subspan(columns.begin, columns.size());
            add_values(x, double{slots.weights[s]}, &sums_[at], &gated_[at]);
          }
        });
  }

 private:
  os::ThreadPool& pool_;
  std::uint64_t width_;
  std::span<double> sums_, gated_;
};

std::unique_ptr<StatisticCollector> make(const LayerContext& context) {
  if (!context.is_moe()) return nullptr;
  return std::make_unique<MeanOutputs>(context);
}

}  // namespace

extern const StatisticFamily kMeanOutputs{
    .name = "mean_outputs",
    .summary = "sums of the experts' outputs, plain and gated",
    .make = make};

}  // namespace winnow::compress

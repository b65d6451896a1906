// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Sums of the experts' outputs: divided by hits, the vector that could stand in for an expert; the
// one weighted with the squared router weight is the best single constant in the least-squares
// sense.
#include "compress/expert_columns.h"
#include "compress/statistic.h"

namespace winnow::compress {
namespace {

class MeanOutputs final : public StatisticCollector {
 public:
  explicit MeanOutputs(const LayerContext& context)
      : kernels_(context.kernels),
        pool_(context.pool),
        width_(context.spec.hidden_size),
        sums_(context.sums.add_sum("output_sums", {context.spec.moe.num_experts, width_})),
        gated_(context.sums.add_sum("gated_output_sums", {context.spec.moe.num_experts, width_})) {}

  void on_experts(const engine::ExpertSlots& slots) override {
    square_weights(slots.weights, weights_);
    for_expert_columns(
        pool_, slots, width_, [&](std::size_t expert, os::Range range, os::Range columns) {
          const std::size_t at = expert * width_ + columns.begin;
          for_row_stretches(
              range, columns.size(),
              [&](std::size_t slot) { return slots.outputs.row(slot).data() + columns.begin; },
              [&](const float* const* rows, std::size_t first, std::size_t count) {
                kernels_.column_values(rows, &weights_[first], count, columns.size(), &sums_[at],
                                       &gated_[at]);
              });
        });
  }

 private:
  const kernels::Kernels& kernels_;
  os::ThreadPool& pool_;
  std::uint64_t width_;
  std::span<double> sums_, gated_;
  std::vector<double> weights_;  // squared, of each slot
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

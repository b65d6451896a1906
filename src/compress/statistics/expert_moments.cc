// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Second moments of the inputs of the experts' matrices, plain and weighted with the square of the
// router weight: an importance matrix, and what an error of a column costs at the layer's output.
#include "compress/expert_columns.h"
#include "compress/statistic.h"

namespace winnow::compress {
namespace {

class ExpertMoments final : public StatisticCollector {
 public:
  explicit ExpertMoments(const LayerContext& context)
      : kernels_(context.kernels),
        pool_(context.pool),
        width_(context.spec.hidden_size),
        inner_(context.spec.moe.moe_intermediate_size),
        input_squares_(add(context, "expert_input_squares", width_)),
        gated_input_squares_(add(context, "gated_expert_input_squares", width_)),
        inner_squares_(add(context, "expert_inner_squares", inner_)),
        gated_inner_squares_(add(context, "gated_expert_inner_squares", inner_)) {}

  void on_experts(const engine::ExpertSlots& slots) override {
    square_weights(slots.weights, weights_);
    add_rows(slots, width_, input_squares_, gated_input_squares_,
             [&slots](std::size_t slot) { return slots.inputs.row(slots.tokens[slot]).data(); });
    add_rows(slots, inner_, inner_squares_, gated_inner_squares_,
             [&slots](std::size_t slot) { return slots.inner.row(slot).data(); });
  }

 private:
  template <typename RowOf>
  void add_rows(const engine::ExpertSlots& slots, std::size_t width, std::span<double> squares,
                std::span<double> gated, const RowOf& row_of) {
    for_expert_columns(
        pool_, slots, width, [&](std::size_t expert, os::Range range, os::Range columns) {
          const std::size_t at = expert * width + columns.begin;
          for_row_stretches(
              range, columns.size(), [&](std::size_t slot) { return row_of(slot) + columns.begin; },
              [&](const float* const* rows, std::size_t first, std::size_t count) {
                kernels_.column_squares(rows, &weights_[first], count, columns.size(), &squares[at],
                                        &gated[at]);
              });
        });
  }
  static std::span<double> add(const LayerContext& context, const char* name, std::uint64_t width) {
    return context.sums.add_sum(name, {context.spec.moe.num_experts, width});
  }

  const kernels::Kernels& kernels_;
  os::ThreadPool& pool_;
  std::uint64_t width_, inner_;
  std::span<double> input_squares_, gated_input_squares_, inner_squares_, gated_inner_squares_;
  std::vector<double> weights_;  // squared, of each slot
};

std::unique_ptr<StatisticCollector> make(const LayerContext& context) {
  if (!context.is_moe()) return nullptr;
  return std::make_unique<ExpertMoments>(context);
}

}  // namespace

extern const StatisticFamily kExpertMoments{
    .name = "expert_moments",
    .summary = "second moments of the experts' inputs and inner activations, plain and gated",
    .make = make};

}  // namespace winnow::compress

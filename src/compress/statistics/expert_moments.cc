// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Second moments of the inputs of the experts' matrices, plain and weighted with the square of the
// router weight: an importance matrix, and what an error of a column costs at the layer's output.
#include "compress/column_sums.h"
#include "compress/expert_columns.h"
#include "compress/statistic.h"

namespace winnow::compress {
namespace {

class ExpertMoments final : public StatisticCollector {
 public:
  explicit ExpertMoments(const LayerContext& context)
      : pool_(context.pool),
        width_(context.spec.hidden_size),
        inner_(context.spec.moe.moe_intermediate_size),
        input_squares_(add(context, "expert_input_squares", width_)),
        gated_input_squares_(add(context, "gated_expert_input_squares", width_)),
        inner_squares_(add(context, "expert_inner_squares", inner_)),
        gated_inner_squares_(add(context, "gated_expert_inner_squares", inner_)) {}

  void on_experts(const engine::ExpertSlots& slots) override {
    for_expert_columns(
        pool_, slots, width_, [&](std::size_t expert, os::Range rows, os::Range columns) {
          const std::size_t at = expert * width_ + columns.begin;
          for (std::size_t s = rows.begin; s < rows.end; ++s) {
            const auto x = slots.inputs.row(slots.tokens[s]).subspan(columns.begin, columns.size());
            add_squares(x, double{slots.weights[s]}, &input_squares_[at],
                        &gated_input_squares_[at]);
          }
        });
    for_expert_columns(pool_, slots, inner_,
                       [&](std::size_t expert, os::Range rows, os::Range columns) {
                         const std::size_t at = expert * inner_ + columns.begin;
                         for (std::size_t s = rows.begin; s < rows.end; ++s) {
                           const auto x = slots.inner.row(s).subspan(columns.begin, columns.size());
                           add_squares(x, double{slots.weights[s]}, &inner_squares_[at],
                                       &gated_inner_squares_[at]);
                         }
                       });
  }

 private:
  static std::span<double> add(const LayerContext& context, const char* name, std::uint64_t width) {
    return context.sums.add_sum(name, {context.spec.moe.num_experts, width});
  }

  os::ThreadPool& pool_;
  std::uint64_t width_, inner_;
  std::span<double> input_squares_, gated_input_squares_, inner_squares_, gated_inner_squares_;
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

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How much the experts' outputs weigh. The gated Gram matrix gives the exact squared error of the
// layer's output when any set P of experts is zeroed: p^T G p, p the indicator of P. Norms feed the
// scores of EAN, MAN and REAP (arXiv:2510.13999); maxima show super experts (arXiv:2507.23279).
#include <algorithm>
#include <cmath>
#include <vector>

#include "compress/expert_columns.h"
#include "compress/statistic.h"

namespace winnow::compress {
namespace {

// Outputs of a token's choices are asked for so many tokens before they are multiplied.
constexpr std::size_t kAhead = 2;
// From there on the processor sees a stream by itself.
constexpr std::size_t kAheadValues = 512;

class ExpertOutputs final : public StatisticCollector {
 public:
  explicit ExpertOutputs(const LayerContext& context)
      : kernels_(context.kernels),
        pool_(context.pool),
        experts_(context.spec.moe.num_experts),
        norms_(context.sums.add_sum("output_norms", {experts_})),
        squares_(context.sums.add_sum("output_squares", {experts_})),
        gated_norms_(context.sums.add_sum("gated_output_norms", {experts_})),
        gated_squares_(context.sums.add_sum("gated_output_squares", {experts_})),
        half_norms_(context.sums.add_sum("half_gated_output_norms", {2, experts_})),
        gram_(context.sums.add_sum("output_gram", {experts_, experts_})),
        largest_norm_(context.sums.add_maximum("output_norm_max", {experts_})),
        largest_(context.sums.add_maximum("output_max", {experts_})) {}

  void on_batch(std::span<const std::uint32_t> windows) override { windows_ = windows; }

  void on_experts(const engine::ExpertSlots& slots) override {
    multiply_pairs(slots);
    for (std::size_t i = 0; i < slots.experts.size(); ++i) {
      const std::size_t expert = index(slots.experts[i]);
      for (std::size_t s = slots.first[i]; s < slots.first[i + 1]; ++s) {
        expert_of_[s] = static_cast<std::uint32_t>(expert);
        largest_[expert] = std::max(largest_[expert], largest_of_slot_[s]);
      }
    }
    for (std::size_t t = 0; t < slots.inputs.rows; ++t) add_token(slots, t);
  }

 private:
  /// Dot products of the outputs of each token's choices, and the largest entries of all.
  void multiply_pairs(const engine::ExpertSlots& slots) {
    const std::size_t k = slots.top_k;
    const std::size_t tokens = slots.inputs.rows;
    products_.resize(tokens * k * k);
    largest_of_slot_.resize(tokens * k);
    expert_of_.resize(tokens * k);
    const std::size_t parts = std::min<std::size_t>(tokens, std::size_t{pool_.size()} * 4);
    pool_.run(parts, [&](std::size_t part, unsigned) {
      const os::Range range = os::split(tokens, parts, part);
      std::vector<const float*> rows(k);
      for (std::size_t t = range.begin; t < range.end; ++t) {
        for (std::size_t i = 0; i < k; ++i) {
          const std::size_t slot = slots.slot_of[t * k + i];
          rows[i] = slots.outputs.row(slot).data();
          if (t + kAhead < range.end) {
            prefetch(slots.outputs.row(slots.slot_of[(t + kAhead) * k + i]).data(),
                     std::min(slots.outputs.cols, kAheadValues));
          }
          largest_of_slot_[slot] = kernels_.largest_magnitude(rows[i], slots.outputs.cols);
          kernels_.wide_dots(rows[i], rows.data(), i + 1, slots.outputs.cols,
                             &products_[(t * k + i) * k]);
        }
      }
    });
  }

  void add_token(const engine::ExpertSlots& slots, std::size_t t) {
    const std::size_t k = slots.top_k;
    for (std::size_t i = 0; i < k; ++i) {
      const std::size_t a = slots.slot_of[t * k + i];
      for (std::size_t j = 0; j <= i; ++j) {
        const std::size_t b = slots.slot_of[t * k + j];
        const double gates = double{slots.weights[a]} * double{slots.weights[b]};
        const double product = gates * products_[(t * k + i) * k + j];
        gram_[expert_of_[a] * experts_ + expert_of_[b]] += product;
        if (i != j) gram_[expert_of_[b] * experts_ + expert_of_[a]] += product;
      }
      add_norm(expert_of_[a], products_[(t * k + i) * k + i], double{slots.weights[a]},
               windows_[t] % 2);
    }
  }

  void add_norm(std::size_t expert, double square, double weight, std::size_t half) {
    const double norm = std::sqrt(square);
    norms_[expert] += norm;
    squares_[expert] += square;
    gated_norms_[expert] += weight * norm;
    gated_squares_[expert] += weight * weight * square;
    half_norms_[half * experts_ + expert] += weight * norm;
    largest_norm_[expert] = std::max(largest_norm_[expert], static_cast<float>(norm));
  }

  const kernels::Kernels& kernels_;
  os::ThreadPool& pool_;
  std::uint64_t experts_;
  std::span<const std::uint32_t> windows_;
  std::span<double> norms_, squares_, gated_norms_, gated_squares_, half_norms_, gram_;
  std::span<float> largest_norm_, largest_;
  std::vector<double> products_;  // [tokens, top_k, top_k], the lower triangle
  std::vector<float> largest_of_slot_;
  std::vector<std::uint32_t> expert_of_;  // of each slot
};

std::unique_ptr<StatisticCollector> make(const LayerContext& context) {
  if (!context.is_moe()) return nullptr;
  return std::make_unique<ExpertOutputs>(context);
}

}  // namespace

extern const StatisticFamily kExpertOutputs{
    .name = "expert_outputs",
    .summary = "norms, maxima and gated Gram matrix of the experts' outputs",
    .make = make};

}  // namespace winnow::compress

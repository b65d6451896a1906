// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How the router uses the experts: hits, applied weights, who is chosen together, and how far the
// weights of a token's choices lie apart.
#include <algorithm>
#include <vector>

#include "compress/statistic.h"

namespace winnow::compress {
namespace {

constexpr std::uint64_t kBins = 256;

std::size_t bin_of(double share) {
  return static_cast<std::size_t>(std::clamp(share * kBins, 0.0, kBins - 1.0));
}

class Routing final : public StatisticCollector {
 public:
  explicit Routing(const LayerContext& context)
      : kernels_(context.kernels),
        experts_(context.spec.moe.num_experts),
        tokens_(context.sums.add_count("tokens", {1})),
        hits_(context.sums.add_count("hits", {experts_})),
        half_hits_(context.sums.add_count("half_hits", {2, experts_})),
        weights_(context.sums.add_sum("weight_sums", {experts_})),
        ratios_(context.sums.add_count("weight_ratios", {context.spec.moe.top_k, kBins})),
        coactivation_(context.sums.add_count("coactivation", {experts_, experts_})),
        gram_(context.sums.add_sum("gate_gram", {experts_, experts_})) {}

  void on_batch(std::span<const std::uint32_t> windows) override { windows_ = windows; }

  void on_routing(tensor::MatrixView<const float> logits,
                  const engine::RoutingView& routing) override {
    tokens_[0] += logits.rows;
    for (std::size_t t = 0; t < logits.rows; ++t) {
      const auto chosen = routing.experts.subspan(t * routing.top_k, routing.top_k);
      const auto weights = routing.weights.subspan(t * routing.top_k, routing.top_k);
      add_ratios(logits.row(t), chosen, weights);
      add_pairs(chosen, weights);
      for (const ExpertId e : chosen) ++half_hits_[windows_[t] % 2 * experts_ + index(e)];
    }
  }

 private:
  /// Softmax mass of the chosen experts, before any renormalisation.
  double chosen_mass(std::span<const float> logits, std::span<const ExpertId> chosen) {
    shares_.assign(logits.begin(), logits.end());
    kernels_.softmax(shares_.data(), shares_.size());
    double mass = 0;
    for (const ExpertId expert : chosen) mass += double{shares_[index(expert)]};
    return mass;
  }

  void add_ratios(std::span<const float> logits, std::span<const ExpertId> chosen,
                  std::span<const float> weights) {
    ++ratios_[bin_of(chosen_mass(logits, chosen))];
    for (std::size_t j = 1; j < weights.size(); ++j) {
      const double ratio = weights[0] > 0 ? double{weights[j]} / double{weights[0]} : 0;
      ++ratios_[j * kBins + bin_of(ratio)];
    }
  }

  void add_pairs(std::span<const ExpertId> chosen, std::span<const float> weights) {
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      const std::size_t a = index(chosen[i]);
      ++hits_[a];
      weights_[a] += double{weights[i]};
      for (std::size_t j = 0; j < chosen.size(); ++j) {
        const std::size_t b = index(chosen[j]);
        ++coactivation_[a * experts_ + b];
        gram_[a * experts_ + b] += double{weights[i]} * double{weights[j]};
      }
    }
  }

  const kernels::Kernels& kernels_;
  std::uint64_t experts_;
  std::span<const std::uint32_t> windows_;
  std::span<std::uint64_t> tokens_, hits_, half_hits_;
  std::span<double> weights_;
  std::span<std::uint64_t> ratios_, coactivation_;
  std::span<double> gram_;
  std::vector<float> shares_;  // of one token, [num_experts]
};

std::unique_ptr<StatisticCollector> make(const LayerContext& context) {
  if (!context.is_moe()) return nullptr;
  return std::make_unique<Routing>(context);
}

}  // namespace

extern const StatisticFamily kRouting{
    .name = "routing",
    .summary = "hits, applied router weights, co-activation, gate Gram, ratios of weights",
    .make = make};

}  // namespace winnow::compress

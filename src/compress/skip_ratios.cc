// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/skip_ratios.h"

#include <algorithm>
#include <cmath>

#include "engine/observer.h"

namespace winnow::compress {
namespace {

constexpr std::size_t kShares = 10;
constexpr double kSharesPerUnit = 20;  // 0.05 apart

double share_of(std::size_t i) { return static_cast<double>(i + 1) / kSharesPerUnit; }

/// The ratios of one layer.
class RatioCollector final : public engine::Observer {
 public:
  bool wants_expert_inputs() const override { return false; }
  void on_routing(LayerId /*layer*/, tensor::MatrixView<const float> /*logits*/,
                  const engine::RoutingView& routing) override {
    for (std::size_t first = 0; first < routing.weights.size(); first += routing.top_k) {
      for (std::size_t k = 1; k < routing.top_k; ++k) {
        ratios.push_back(routing.weights[first + k] / routing.weights[first]);
      }
    }
    slots += routing.weights.size();
  }
  void clear() {
    ratios.clear();
    slots = 0;
  }
  std::vector<float> ratios;
  std::size_t slots = 0;
};

}  // namespace

model::SkipRatios no_skip_ratios(const model::ModelSpec& spec) {
  model::SkipRatios result;
  for (std::size_t i = 0; i < kShares; ++i) {
    result.shares.push_back(static_cast<float>(share_of(i)));
  }
  result.ratios.resize(spec.num_hidden_layers * kShares);
  return result;
}

float skip_ratio(std::span<float> ratios, double share, std::size_t slots) {
  // The products of shares are not exact: 0.15 x 20 slots are three, not two.
  const auto skipped =
      static_cast<std::size_t>(std::floor(share * static_cast<double>(slots) + 1e-6));
  if (skipped == 0 || ratios.empty()) return 0;
  if (skipped >= ratios.size()) return 1;
  const auto next = ratios.begin() + static_cast<std::ptrdiff_t>(skipped);
  std::nth_element(ratios.begin(), next, ratios.end());
  const double below = *std::max_element(ratios.begin(), next);
  return std::min(1.0F, static_cast<float>((below + *next) / 2));
}

model::SkipRatios measure_skip_ratios(engine::LayerRunner& runner, const model::ModelSpec& spec,
                                      const WindowBatches& text,
                                      const std::filesystem::path& states, Log& log) {
  model::SkipRatios result = no_skip_ratios(spec);
  WindowStream stream(text, spec.hidden_size, states);
  stream.embed(runner, nullptr, log);
  RatioCollector collector;
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    runner.load(LayerId{layer});
    collector.clear();
    stream.run(runner, stream, &collector, log);
    if (spec.is_moe_layer(LayerId{layer})) {
      for (std::size_t i = 0; i < kShares; ++i) {
        result.ratios[layer * kShares + i] =
            skip_ratio(collector.ratios, share_of(i), collector.slots);
      }
    }
    log.progress("weighing experts", layer + 1, spec.num_hidden_layers, "layers");
  }
  return result;
}

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The experts that this sequence used most, its last tokens before all others, mixed with all that
// the process has seen: MoE-Infinity's observation that a sequence keeps to few experts
// (arXiv:2401.14361), without the search among stored sequences.
#include <algorithm>
#include <cmath>
#include <vector>

#include "experts/route_predictor.h"

namespace winnow::experts {
namespace {

struct Options {
  double half_life = 24;   ///< tokens until a use in this sequence counts half, > 0
  double all_share = 0.2;  ///< what uses in all sequences count beside it, at equal rates
};

class SequencePrior final : public RoutePredictor {
 public:
  SequencePrior(const CacheShape& shape, const Options& options)
      : shape_(shape),
        options_(options),
        sequence_(shape.num_keys()),
        all_(shape.num_keys()),
        passes_(shape.num_layers) {}

  void begin_sequence() override { std::fill(sequence_.begin(), sequence_.end(), 0.0); }

  bool score(LayerId layer, RouterPreview* /*preview*/, std::span<float> scores) override {
    const double passes = passes_[index(layer)];
    if (passes == 0) return false;
    for (std::uint32_t e = 0; e < shape_.num_experts; ++e) {
      const std::size_t number = shape_.number({layer, ExpertId{e}});
      scores[e] =
          static_cast<float>(sequence_[number] + options_.all_share * all_[number] / passes);
    }
    return true;
  }

  void learn(LayerId layer, std::span<const ExpertId> chosen) override {
    const double kept = std::exp2(-1 / options_.half_life);
    for (std::uint32_t e = 0; e < shape_.num_experts; ++e) {
      sequence_[shape_.number({layer, ExpertId{e}})] *= kept;
    }
    for (const ExpertId expert : chosen) {
      const std::size_t number = shape_.number({layer, expert});
      sequence_[number] += 1 - kept;
      ++all_[number];
    }
    ++passes_[index(layer)];
  }

 private:
  CacheShape shape_;
  Options options_;
  std::vector<double> sequence_;  // rates of use, by key
  std::vector<double> all_;       // uses, by key
  std::vector<double> passes_;    // by layer
};

}  // namespace

extern const PredictorEntry kSequencePrior{
    "sequence-prior", "MoE-Infinity: arXiv:2401.14361", [](const CacheShape& shape) {
      return std::unique_ptr<RoutePredictor>(new SequencePrior(shape, {}));
    }};

}  // namespace winnow::experts

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The next layer's router on what this layer's router was given: a block adds little to the
// residual stream, so that most of the choice is there one layer earlier (Eliseev and
// Mazur: arXiv:2312.17238; Pre-gated MoE, arXiv:2308.12066, trains its model to that end).
#include <algorithm>

#include "experts/route_predictor.h"

namespace winnow::experts {
namespace {

class NextRouter final : public RoutePredictor {
 public:
  bool score(LayerId layer, RouterPreview* preview, std::span<float> scores) override {
    if (preview == nullptr) return false;
    const std::span<const float> logits = preview->logits(layer);
    std::copy(logits.begin(), logits.end(), scores.begin());
    return true;
  }
};

}  // namespace

extern const PredictorEntry kNextRouter{
    "next-router", "Eliseev and Mazur: arXiv:2312.17238",
    [](const CacheShape&) { return std::unique_ptr<RoutePredictor>(new NextRouter()); }};

}  // namespace winnow::experts

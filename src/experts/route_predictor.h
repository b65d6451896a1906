// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Which experts a layer will use, before its router has run. A further predictor is a file in
// predictors/ and a line in registry.def. Predictions change what is read early, never a result.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/units.h"
#include "experts/cache_policy.h"

namespace winnow::experts {

/// Routers of layers to come, run on the state at hand. The engine's.
class RouterPreview {
 public:
  /// Logits [experts of `layer`], valid until the next call.
  virtual std::span<const float> logits(LayerId layer) = 0;

 protected:
  ~RouterPreview() = default;
};

/// Of one sequence that is decoded token by token. One thread uses it.
class RoutePredictor {
 public:
  virtual ~RoutePredictor() = default;
  RoutePredictor() = default;
  RoutePredictor(const RoutePredictor&) = delete;
  RoutePredictor& operator=(const RoutePredictor&) = delete;

  /// The next passes are of a text that has nothing to do with the former.
  virtual void begin_sequence() {}
  /// The next requests are this token's.
  virtual void begin_pass(TokenId /*token*/) {}
  /// Scores of the layer's experts in the present pass, the likeliest with the highest;
  /// scores: [num_experts of the shape], those that the layer lacks stay as they are. `preview` is
  /// null before the pass's first router has run. False: nothing is known.
  virtual bool score(LayerId layer, RouterPreview* preview, std::span<float> scores) = 0;
  /// What the layer's router chose in this pass.
  virtual void learn(LayerId /*layer*/, std::span<const ExpertId> /*chosen*/) {}
};

/// A predictor of the list.
struct PredictorEntry {
  std::string_view name;    ///< on the command line
  std::string_view source;  ///< where the idea is from
  std::unique_ptr<RoutePredictor> (*make)(const CacheShape& shape);
};

/// The first is the default.
std::span<const PredictorEntry* const> route_predictors();
/// Throws Error{kUsage} that lists the names when there is no such predictor.
const PredictorEntry& find_route_predictor(std::string_view name);

}  // namespace winnow::experts

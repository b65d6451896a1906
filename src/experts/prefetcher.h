// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Reads experts that a predictor names before their layer asks for them, where that pays; see
// prefetch_gate.h. For passes of one token: a prompt's layers need most of their experts anyway.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "experts/prefetch_gate.h"
#include "experts/route_predictor.h"
#include "experts/store.h"

namespace winnow::experts {

struct PrefetchOptions {
  enum class Mode : std::uint8_t {
    kOff,
    kAuto,   ///< predicts now and then, and reads while the gate says that it pays
    kAlways  ///< reads all that is named
  };
  Mode mode = Mode::kAuto;
  std::string predictor;  ///< of route_predictors(); "": the first
};

/// What predicting and reading early has come to.
struct PrefetchStatistics {
  /// Of one layer, in the passes in which it was predicted.
  struct Recall {
    std::uint64_t chosen = 0;       ///< experts that the router chose
    std::uint64_t among_k = 0;      ///< of those, named among the top_k likeliest
    std::uint64_t among_twice = 0;  ///< of those, among the 2 top_k likeliest
  };
  std::vector<Recall> layers;     ///< one per layer of the model
  std::uint64_t read = 0;         ///< experts read because they were named
  std::uint64_t useful = 0;       ///< of those, chosen in the pass that they were read for
  std::uint64_t named = 0;        ///< experts named among the top_k that were absent, read or not
  std::uint64_t named_right = 0;  ///< of those, chosen
};

class Prefetcher {
 public:
  /// `store` outlives it. Not for Mode::kOff. Throws Error{kUsage} for an unknown predictor.
  Prefetcher(ExpertStore& store, const CacheShape& shape, const PrefetchOptions& options);

  /// The next passes are of a text that has nothing to do with the former.
  void begin_sequence() { predictor_->begin_sequence(); }
  /// A pass over this token alone begins.
  void begin_pass(TokenId token);
  /// What the layer's router chose, before it is asked of the store.
  void routed(LayerId layer, std::span<const ExpertId> chosen);
  /// After it was asked: looks ahead at `next`, which has `experts` experts, while the disk reads
  /// and resident experts are computed. Also at the beginning of a pass, without a preview.
  void look_ahead(LayerId next, std::size_t experts, RouterPreview* preview);

  const PrefetchStatistics& statistics() const { return statistics_; }
  const PrefetchGate& gate() const { return gate_; }

 private:
  using Clock = std::chrono::steady_clock;
  void observe_time();
  void judge(LayerId layer, std::span<const ExpertId> chosen);
  void read_named(LayerId layer);

  ExpertStore& store_;
  const CacheShape shape_;
  const PrefetchOptions::Mode mode_;
  std::unique_ptr<RoutePredictor> predictor_;
  PrefetchGate gate_;
  PrefetchStatistics statistics_;
  std::vector<float> scores_;
  // Of the layer that was looked at last, the likeliest first.
  std::optional<LayerId> target_;
  std::vector<ExpertId> named_;   // 2 top_k, or all of the layer
  std::vector<ExpertId> absent_;  // those of the first top_k that were not in memory
  std::size_t read_ahead_ = 0;    // how many of these were read
  std::unique_ptr<Batch> reading_;
  std::uint64_t passes_ = 0;
  bool predicts_ = false;  // in this pass
  bool paid_ = false;      // the last time that it was asked, something was worth reading
  // Since the last layer's request.
  std::optional<Clock::time_point> last_request_;
  std::uint64_t needed_before_ = 0;  // bytes
};

}  // namespace winnow::experts

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// For tests only: the first layer of a tiny model on random text, and what its experts do there.
#pragma once

#include <string>
#include <vector>

#include "compress/expert_sums.h"
#include "compress/testing.h"

namespace winnow::compress::testing {

class LayerOfExperts {
 public:
  static constexpr LayerId kLayer{0};

  explicit LayerOfExperts(const std::string& model, unsigned threads = 1,
                          std::size_t batch_tokens = 64)
      : LayerOfExperts(open_tiny(WINNOW_SOURCE_DIR, model), threads, batch_tokens) {}
  explicit LayerOfExperts(model::Checkpoint source, unsigned threads = 1,
                          std::size_t batch_tokens = 64)
      : source_(std::move(source)),
        runner_(source_, {threads, ""}),
        batches_(text_.windows, batch_tokens),
        stream_(batches_, source_.spec().hidden_size, "") {
    stream_.embed(runner_, nullptr, log_);
    runner_.load(kLayer);
    sums_ = collect_expert_sums(runner_, spec(), kLayer, stream_, log_);
  }

  const model::ModelSpec& spec() const { return source_.spec(); }
  engine::LayerRunner& runner() { return runner_; }
  WindowStream& stream() { return stream_; }
  const WindowBatches& batches() const { return batches_; }
  const LayerSums& sums() const { return sums_; }
  TestLog& log() { return log_; }

  /// Of the layer's output over the text, when these stand for its experts.
  double squared_change(const std::vector<engine::ExpertSubstitute>& experts) {
    return testing::squared_change(runner_, stream_, batches_,
                                   [&] { runner_.override_experts(experts); });
  }

 private:
  model::Checkpoint source_;
  metrics::WindowSet text_ = random_windows(5, 40);
  TestLog log_;
  engine::LayerRunner runner_;
  WindowBatches batches_;
  WindowStream stream_;
  LayerSums sums_;
};

}  // namespace winnow::compress::testing

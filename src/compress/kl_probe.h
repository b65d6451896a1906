// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The KL divergence that a change of weights causes on a little held-out text.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/log.h"
#include "engine/engine.h"
#include "metrics/text_data.h"

namespace winnow::compress {

/// Keeps the logits of the unchanged model on some windows and compares with them.
class KlProbe {
 public:
  /// Runs the windows once. Holds 4 bytes x vocabulary per scored token, and as much again for the
  /// longest window. `log` must outlive it; it can stop every run between two windows.
  KlProbe(engine::Engine& engine, std::vector<metrics::Window> windows, Log& log);

  /// Mean KL(unchanged || engine as it is now) over the scored tokens, nats. Throws as
  /// Engine::forward, and Error{kInterrupted}.
  double divergence(engine::Engine& engine);

  std::uint64_t tokens() const { return tokens_; }
  const std::vector<metrics::Window>& windows() const { return windows_; }

 private:
  /// Logits of all scored positions of one window.
  void run(engine::Engine& engine, const metrics::Window& window, tensor::Matrix<float>& logits);

  Log& log_;
  std::vector<metrics::Window> windows_;
  engine::KvCache cache_;
  std::vector<tensor::Matrix<float>> reference_;  // one per window
  tensor::Matrix<float> logits_;
  std::uint64_t tokens_ = 0;
};

}  // namespace winnow::compress

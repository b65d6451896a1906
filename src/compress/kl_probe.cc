// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/kl_probe.h"

#include <algorithm>

#include "base/error.h"
#include "metrics/distribution.h"

namespace winnow::compress {
namespace {

std::size_t longest(std::span<const metrics::Window> windows) {
  std::size_t most = 1;
  for (const metrics::Window& window : windows) most = std::max(most, window.tokens.size());
  return most;
}

}  // namespace

KlProbe::KlProbe(engine::Engine& engine, std::vector<metrics::Window> windows, Log& log)
    : log_(log), windows_(std::move(windows)), cache_(engine.make_cache(longest(windows_))) {
  for (const metrics::Window& window : windows_) {
    reference_.emplace_back();
    run(engine, window, reference_.back());
    tokens_ += window.scored();
  }
}

void KlProbe::run(engine::Engine& engine, const metrics::Window& window,
                  tensor::Matrix<float>& logits) {
  log_.check_interrupt();
  cache_.truncate(0);
  const engine::SequenceInput input{&cache_, window.tokens};
  const auto hidden = engine.forward(std::span(&input, 1));
  if (logits.rows() != window.scored()) {
    logits = tensor::Matrix<float>(window.scored(), engine.spec().vocab_size);
  }
  engine.logits(hidden.rows_from(window.first_scored - 1, window.scored()), logits.view());
}

double KlProbe::divergence(engine::Engine& engine) {
  double total = 0;
  for (std::size_t w = 0; w < windows_.size(); ++w) {
    run(engine, windows_[w], logits_);
    std::vector<double> kl(logits_.rows());
    engine.pool().run(kl.size(), [&](std::size_t r, unsigned) {
      kl[r] =
          metrics::compare(std::as_const(reference_[w]).row(r), std::as_const(logits_).row(r)).kl;
    });
    for (const double value : kl) total += value;  // in token order: the same for any thread count
  }
  return tokens_ == 0 ? 0 : total / static_cast<double>(tokens_);
}

}  // namespace winnow::compress

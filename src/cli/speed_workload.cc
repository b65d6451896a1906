// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/speed_workload.h"

#include <algorithm>

#include "base/rng.h"
#include "cli/loading.h"

namespace winnow::cli {

Workload::Workload(engine::Engine& engine, std::size_t prompt, std::size_t generate,
                   std::size_t sequences, std::size_t chunk)
    : engine_(engine), prompt_(prompt), chunk_(chunk), step_(sequences) {
  Rng rng(kSeed);
  for (std::size_t i = 0; i < sequences; ++i) {
    const std::size_t capacity = i == 0 ? std::max(prompt, generate) : generate;
    caches_.push_back(engine.make_cache(capacity));
    auto& tokens = tokens_.emplace_back();
    while (tokens.size() < capacity) {
      tokens.push_back(TokenId{static_cast<std::int32_t>(rng.below(engine.spec().vocab_size))});
    }
  }
  if (sequences > 1) logits_ = tensor::Matrix<float>(sequences, engine.spec().vocab_size);
}

double Workload::run(os::Range tokens, std::size_t chunk, const Log& log) {
  const Stopwatch watch;
  for (std::size_t begin = tokens.begin; begin < tokens.end; begin += chunk) {
    log.check_interrupt();
    const std::size_t size = std::min(chunk, tokens.end - begin);
    (void)engine_.next_logits(caches_.front(), std::span(tokens_.front()).subspan(begin, size));
  }
  return watch.seconds();
}

double Workload::prefill(const Log& log, const Pause& pause) {
  caches_.front().truncate(0);
  const double took = run({0, prompt_}, chunk_, log);
  if (pause) pause(took);
  return took;
}

double Workload::decode(std::size_t count, const Log& log, const Pause& pause) {
  caches_.front().truncate(0);
  double total = 0;
  for (std::size_t begin = 0; begin < count; begin += kPauseTokens) {
    const double took = run({begin, std::min(begin + kPauseTokens, count)}, 1, log);
    if (pause) pause(took);
    total += took;
  }
  return total;
}

double Workload::decode_together(std::size_t count, const Log& log, engine::Observer* observer) {
  for (engine::KvCache& cache : caches_) cache.truncate(0);
  const Stopwatch watch;
  for (std::size_t position = 0; position < count; ++position) {
    log.check_interrupt();
    for (std::size_t i = 0; i < step_.size(); ++i) {
      step_[i] = {&caches_[i], std::span(tokens_[i]).subspan(position, 1)};
    }
    const auto hidden = engine_.forward(step_, observer);
    engine_.logits(hidden, logits_.view());
  }
  return watch.seconds();
}

}  // namespace winnow::cli

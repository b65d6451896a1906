// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/speed_workload.h"

#include <algorithm>
#include <utility>

#include "cli/loading.h"

namespace winnow::cli {

Workload::Workload(engine::Engine& engine, std::size_t prompt, std::size_t generate,
                   std::size_t sequences, std::size_t chunk, WorkloadTokens tokens)
    : engine_(engine),
      source_(std::move(tokens)),
      prompt_(prompt),
      chunk_(chunk),
      step_(sequences) {
  for (std::size_t i = 0; i < sequences; ++i) {
    const std::size_t capacity = i == 0 ? std::max(prompt, generate) : generate;
    caches_.push_back(engine.make_cache(capacity));
    auto& sequence = tokens_.emplace_back();
    while (sequence.size() < capacity) sequence.push_back(next_token());
  }
  if (sequences > 1) logits_ = tensor::Matrix<float>(sequences, engine.spec().vocab_size);
}

TokenId Workload::next_token() {
  if (!source_.text.empty()) return source_.text[read_++ % source_.text.size()];
  return TokenId{static_cast<std::int32_t>(rng_.below(engine_.spec().vocab_size))};
}

void Workload::draw(std::size_t sequence, std::size_t count) {
  if (!source_.fresh) return;
  for (TokenId& token : std::span(tokens_[sequence]).first(count)) token = next_token();
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
  draw(0, prompt_);
  caches_.front().truncate(0);
  const double took = run({0, prompt_}, chunk_, log);
  if (pause) pause(took);
  return took;
}

double Workload::decode(std::size_t count, const Log& log, const Pause& pause) {
  draw(0, count);
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
  for (std::size_t i = 0; i < caches_.size(); ++i) draw(i, count);
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

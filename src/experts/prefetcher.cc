// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/prefetcher.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace winnow::experts {
namespace {

// While nothing pays, one pass in so many is predicted to see whether it would.
constexpr std::uint64_t kPassesPerLook = 8;

bool contains(std::span<const ExpertId> list, ExpertId expert) {
  return std::find(list.begin(), list.end(), expert) != list.end();
}

const PredictorEntry& entry_of(const PrefetchOptions& options) {
  return options.predictor.empty() ? *route_predictors().front()
                                   : find_route_predictor(options.predictor);
}

}  // namespace

Prefetcher::Prefetcher(ExpertStore& store, const CacheShape& shape, const PrefetchOptions& options)
    : store_(store),
      shape_(shape),
      mode_(options.mode),
      predictor_(entry_of(options).make(shape)),
      gate_(shape.top_k),
      scores_(shape.num_experts) {
  WINNOW_CHECK(mode_ != PrefetchOptions::Mode::kOff);
  statistics_.layers.resize(shape.num_layers);
}

void Prefetcher::begin_pass(TokenId token) {
  predictor_->begin_pass(token);
  target_.reset();
  reading_.reset();
  last_request_.reset();  // what is done between two tokens is nobody's reading time
  predicts_ = mode_ == PrefetchOptions::Mode::kAlways || paid_ || passes_ % kPassesPerLook == 0;
  ++passes_;
}

/// How long the layer before took, and how much of that its reads.
void Prefetcher::observe_time() {
  const Clock::time_point now = Clock::now();
  const CacheStatistics* const cache = store_.statistics();
  const double rate = store_.read_rate();
  if (cache == nullptr) return;
  const std::uint64_t needed = cache->bytes_read - cache->guessed_bytes;
  if (last_request_ && rate > 0) {
    gate_.observe_layer(std::chrono::duration<double>(now - *last_request_).count(),
                        static_cast<double>(needed - needed_before_) / rate);
  }
  last_request_ = now;
  needed_before_ = needed;
}

void Prefetcher::judge(LayerId layer, std::span<const ExpertId> chosen) {
  PrefetchStatistics::Recall& recall = statistics_.layers[index(layer)];
  const auto likeliest =
      std::span(named_).first(std::min<std::size_t>(named_.size(), shape_.top_k));
  recall.chosen += chosen.size();
  for (const ExpertId expert : chosen) {
    recall.among_k += contains(likeliest, expert) ? 1 : 0;
    recall.among_twice += contains(named_, expert) ? 1 : 0;
  }
  statistics_.named += absent_.size();
  for (std::size_t rank = 0; rank < absent_.size(); ++rank) {
    const bool right = contains(chosen, absent_[rank]);
    gate_.observe_guess(rank, right);
    statistics_.named_right += right ? 1 : 0;
    if (rank < read_ahead_) statistics_.useful += right ? 1 : 0;
  }
}

void Prefetcher::routed(LayerId layer, std::span<const ExpertId> chosen) {
  observe_time();
  if (target_ == layer) judge(layer, chosen);
  target_.reset();
  predictor_->learn(layer, chosen);
}

void Prefetcher::look_ahead(LayerId next, std::size_t experts, RouterPreview* preview) {
  // The right ones are asked for by now; what has not begun of the others is dropped.
  reading_.reset();
  if (!predicts_) return;
  std::fill(scores_.begin(), scores_.end(), -std::numeric_limits<float>::infinity());
  if (!predictor_->score(next, preview, scores_)) return;
  named_.resize(experts);
  for (std::uint32_t e = 0; e < experts; ++e) named_[e] = ExpertId{e};
  const std::size_t count = std::min<std::size_t>(experts, 2 * std::size_t{shape_.top_k});
  std::partial_sort(named_.begin(), named_.begin() + static_cast<std::ptrdiff_t>(count),
                    named_.end(), [this](ExpertId a, ExpertId b) {
                      const float of_a = scores_[index(a)];
                      const float of_b = scores_[index(b)];
                      return of_a != of_b ? of_a > of_b : a < b;
                    });
  named_.resize(count);
  target_ = next;
  read_named(next);
}

void Prefetcher::read_named(LayerId layer) {
  absent_.clear();
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < std::min<std::size_t>(named_.size(), shape_.top_k); ++i) {
    const Bytes missing = store_.absent_bytes(layer, named_[i]);
    if (missing.value == 0) continue;
    absent_.push_back(named_[i]);
    bytes = std::max(bytes, missing.value);
  }
  read_ahead_ = absent_.size();
  if (mode_ == PrefetchOptions::Mode::kAuto) {
    const double rate = store_.read_rate();
    const std::size_t allowed =
        rate > 0 && bytes > 0 ? gate_.allowed(static_cast<double>(bytes) / rate) : 0;
    if (bytes > 0) paid_ = allowed > 0;
    read_ahead_ = std::min(read_ahead_, allowed);
  }
  if (read_ahead_ == 0) return;
  reading_ = store_.request(layer, std::span(absent_).first(read_ahead_), Priority::kSpeculation);
  statistics_.read += read_ahead_;
}

}  // namespace winnow::experts

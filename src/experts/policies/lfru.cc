// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Frequency and recency multiplied: score = fading count of uses * 2^(-age / tau). The form is that
// of the LFRU caches for experts in colibri and vLLM.
#include <cmath>

#include "experts/cache_policy.h"
#include "experts/resident_keys.h"

namespace winnow::experts {
namespace {

struct Options {
  double count_half_life = 256;  ///< passes (tokens in decode) until a use counts half, > 0
  double tau = 64;               ///< passes without use that halve the score, > 0
};

class Lfru final : public CachePolicy {
 public:
  Lfru(const CacheShape& shape, const Options& options)
      : shape_(shape), options_(options), residents_(shape), uses_(shape.num_keys()) {}

  void begin_pass() override { now_ += 1; }
  void on_request(LayerId layer, std::span<const ExpertId> experts) override {
    for (const ExpertId expert : experts) use(uses_[shape_.number({layer, expert})]);
  }
  void on_admit(ExpertKey key, Origin /*origin*/) override { residents_.insert(key); }
  void on_evict(ExpertKey key) override { residents_.erase(key); }
  std::optional<ExpertKey> victim(ExpertKey /*incoming*/, Origin /*origin*/,
                                  const KeySet& locked) const override {
    return residents_.lowest(locked,
                             [&](ExpertKey key) { return uses_[shape_.number(key)].score; });
  }

 private:
  struct Uses {
    double count = 0;  // as of `last`
    double last = 0;
    double score = -HUGE_VAL;  // never used
  };

  /// With r = 1 / half life + 1 / tau, log2(score at time t) = log2(count) + r * last - r * t: the
  /// last term is the same for all experts, so that the others order them for ever.
  void use(Uses& uses) {
    uses.count = 1 + uses.count * std::exp2((uses.last - now_) / options_.count_half_life);
    uses.last = now_;
    uses.score = std::log2(uses.count) + now_ * (1 / options_.count_half_life + 1 / options_.tau);
  }

  CacheShape shape_;
  Options options_;
  ResidentKeys residents_;
  std::vector<Uses> uses_;
  double now_ = 0;  // passes
};

}  // namespace

extern const PolicyEntry kLfru{"lfru", "colibri; vLLM", [](const CacheShape& shape, std::uint64_t) {
                                 return std::unique_ptr<CachePolicy>(new Lfru(shape, Options{}));
                               }};

}  // namespace winnow::experts

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Frequency and recency multiplied: score = fading count of uses * 2^(-age / tau). The form is that
// of the LFRU caches for experts in colibri and vLLM.
#include <cmath>
#include <set>
#include <utility>

#include "experts/cache_policy.h"

namespace winnow::experts {
namespace {

struct Options {
  // Measured on grain with a quarter and half of the experts in memory: 53.1 and 79.4 % hits; half
  // and twice these numbers give 52.3 to 53.2 and 78.9 to 79.4.
  double count_half_life = 64;  ///< passes (tokens in decode) until a use counts half, > 0
  double tau = 32;              ///< passes without use that halve the score, > 0
};

/// An event costs O(log slots).
class Lfru final : public CachePolicy {
 public:
  Lfru(const CacheShape& shape, const Options& options)
      : shape_(shape), options_(options), uses_(shape.num_keys()) {}

  void begin_pass() override { now_ += 1; }
  void on_request(LayerId layer, std::span<const ExpertId> experts) override {
    for (const ExpertId expert : experts) {
      const std::size_t number = shape_.number({layer, expert});
      const bool is_resident = residents_.erase(place(number)) > 0;
      use(uses_[number]);
      if (is_resident) residents_.insert(place(number));
    }
  }
  void on_admit(ExpertKey key, Origin /*origin*/) override {
    residents_.insert(place(shape_.number(key)));
  }
  void on_evict(ExpertKey key) override { residents_.erase(place(shape_.number(key))); }
  std::optional<ExpertKey> victim(ExpertKey /*incoming*/, Origin /*origin*/,
                                  const KeySet& locked) const override {
    for (const auto& [score, number] : residents_) {
      if (!locked.contains(shape_.key(number))) return shape_.key(number);
    }
    return std::nullopt;
  }

 private:
  using Place = std::pair<double, std::size_t>;  // score, number of the key
  struct Uses {
    double count = 0;  // as of `last`
    double last = 0;
    double score = -HUGE_VAL;  // never used
  };

  Place place(std::size_t number) const { return {uses_[number].score, number}; }

  /// With r = 1 / half life + 1 / tau, log2(score at time t) = log2(count) + r * last - r * t: the
  /// last term is the same for all experts, so that the others order them until the next use.
  void use(Uses& uses) const {
    uses.count = 1 + uses.count * std::exp2((uses.last - now_) / options_.count_half_life);
    uses.last = now_;
    uses.score = std::log2(uses.count) + now_ * (1 / options_.count_half_life + 1 / options_.tau);
  }

  CacheShape shape_;
  Options options_;
  std::vector<Uses> uses_;     // [num_keys]
  std::set<Place> residents_;  // the lowest score first
  double now_ = 0;             // passes
};

}  // namespace

extern const PolicyEntry kLfru{"lfru", "colibri; vLLM", [](const CacheShape& shape, std::uint64_t) {
                                 return std::unique_ptr<CachePolicy>(new Lfru(shape, Options{}));
                               }};

}  // namespace winnow::experts

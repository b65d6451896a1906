// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// EdgeMoE's eviction (Yi et al.: arXiv:2308.14352): what is used often stays, and of the rest the
// layers that come round last go first. Worth of an expert = how often it was used / layers until
// its own is next. Frequencies are those of the run; the paper adds ones measured beforehand.
#include "experts/cache_policy.h"
#include "experts/resident_keys.h"

namespace winnow::experts {
namespace {

class EdgeMoe final : public CachePolicy {
 public:
  explicit EdgeMoe(const CacheShape& shape)
      : shape_(shape), residents_(shape), uses_(shape.num_keys()) {}

  void on_request(LayerId layer, std::span<const ExpertId> experts) override {
    now_ = index(layer);
    for (const ExpertId expert : experts) uses_[shape_.number({layer, expert})] += 1;
  }
  void on_admit(ExpertKey key, Origin /*origin*/) override { residents_.insert(key); }
  void on_evict(ExpertKey key) override { residents_.erase(key); }
  std::optional<ExpertKey> victim(ExpertKey /*incoming*/, Origin /*origin*/,
                                  const KeySet& locked) const override {
    return residents_.lowest(locked, [&](ExpertKey key) {
      return (uses_[shape_.number(key)] + kUnusedWorth) / layers_until(index(key.layer));
    });
  }

 private:
  /// So that distance orders what was never used (speculations) too.
  static constexpr double kUnusedWorth = 0.5;

  /// In [1, num_layers]: the present layer has made its choice, it is next in a whole round.
  double layers_until(std::uint32_t layer) const {
    return layer > now_ ? layer - now_ : layer + shape_.num_layers - now_;
  }

  CacheShape shape_;
  ResidentKeys residents_;
  std::vector<double> uses_;
  std::uint32_t now_ = 0;  // the layer of the last request
};

}  // namespace

extern const PolicyEntry kEdgeMoe{"edge-moe", "EdgeMoE, arXiv:2308.14352",
                                  [](const CacheShape& shape, std::uint64_t) {
                                    return std::unique_ptr<CachePolicy>(new EdgeMoe(shape));
                                  }};

}  // namespace winnow::experts

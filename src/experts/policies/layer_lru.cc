// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// One LRU per layer, slots shared out evenly: the caches of mixtral-offloading (Eliseev, Mazur:
// arXiv:2312.17238). No layer can drive out another's experts, so that some hits are left where one
// LRU over all layers has none; layers that need more slots than others do not get them.
#include "experts/cache_policy.h"
#include "experts/resident_keys.h"

namespace winnow::experts {
namespace {

class LayerLru final : public CachePolicy {
 public:
  explicit LayerLru(const CacheShape& shape)
      : shape_(shape), residents_(shape), last_use_(shape.num_keys()) {}

  void on_request(LayerId layer, std::span<const ExpertId> experts) override {
    for (const ExpertId expert : experts) use({layer, expert});
  }
  void on_admit(ExpertKey key, Origin origin) override {
    residents_.insert(key);
    use(key);
    if (origin == Origin::kPrefill) last_use_[shape_.number(key)] = 0;
  }
  void on_evict(ExpertKey key) override { residents_.erase(key); }

  /// The layer that has most gives, its own when that would have as many: shares stay even without
  /// knowing which layers have experts.
  std::optional<ExpertKey> victim(ExpertKey incoming, Origin /*origin*/,
                                  const KeySet& locked) const override {
    std::optional<ExpertKey> best;
    std::size_t most = 0;
    for (std::uint32_t l = 0; l < shape_.num_layers; ++l) {
      const bool is_own = LayerId{l} == incoming.layer;
      const std::size_t held = residents_.of_layer(LayerId{l}).size() + (is_own ? 1 : 0);
      if (held < most || (held == most && !is_own)) continue;
      const auto oldest = oldest_of(LayerId{l}, locked);
      if (!oldest) continue;
      best = oldest;
      most = held;
    }
    return best;
  }

 private:
  void use(ExpertKey key) { last_use_[shape_.number(key)] = ++clock_; }
  std::optional<ExpertKey> oldest_of(LayerId layer, const KeySet& locked) const {
    return residents_.lowest_of_layer(layer, locked, [&](ExpertKey key) {
      return static_cast<double>(last_use_[shape_.number(key)]);
    });
  }

  CacheShape shape_;
  ResidentKeys residents_;
  std::vector<std::uint64_t> last_use_;
  std::uint64_t clock_ = 0;
};

}  // namespace

extern const PolicyEntry kLayerLru{"layer-lru", "mixtral-offloading, arXiv:2312.17238",
                                   [](const CacheShape& shape, std::uint64_t) {
                                     return std::unique_ptr<CachePolicy>(new LayerLru(shape));
                                   }};

}  // namespace winnow::experts

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// ExpertFlow's predictive locality-aware caching (PLEC; He et al.: arXiv:2410.17954): slots are
// shared out over the layers in proportion to how many experts each is predicted to need, a layer
// that holds more than its share gives first, and what was predicted and then not used goes before
// all else. The paper's predictor is a network; here demand is the number of different experts that
// a layer is expected to use in the next passes if each keeps the rate at which it was used lately,
// and predictors that name experts (on_prediction) raise those.
#include <algorithm>
#include <cmath>

#include "experts/cache_policy.h"
#include "experts/resident_keys.h"

namespace winnow::experts {
namespace {

struct Options {
  double half_life = 32;  ///< passes (tokens in decode) until a use counts half, > 0
  double horizon = 16;    ///< passes that the slots are meant for, > 0
};

class PredictedDemand final : public CachePolicy {
 public:
  PredictedDemand(const CacheShape& shape, const Options& options)
      : shape_(shape),
        options_(options),
        residents_(shape),
        rates_(shape.num_keys()),
        predictions_(shape.num_keys(), Prediction::kNone),
        shares_(shape.num_layers, even_share()) {}

  void begin_pass() override {
    if (++passes_ % kPassesPerShare == 0) share_out();
  }
  void on_request(LayerId layer, std::span<const ExpertId> experts) override {
    now_ = index(layer);
    const double kept = std::exp2(-1 / options_.half_life);
    for (std::uint32_t e = 0; e < shape_.num_experts; ++e) {
      const std::size_t number = shape_.number({layer, ExpertId{e}});
      rates_[number] *= kept;
      if (predictions_[number] == Prediction::kNamed) predictions_[number] = Prediction::kFailed;
    }
    for (const ExpertId expert : experts) {
      const std::size_t number = shape_.number({layer, expert});
      rates_[number] += 1 - kept;
      predictions_[number] = Prediction::kNone;
    }
  }
  void on_prediction(LayerId layer, std::span<const ExpertId> experts) override {
    for (const ExpertId expert : experts) {
      predictions_[shape_.number({layer, expert})] = Prediction::kNamed;
    }
  }
  void on_admit(ExpertKey key, Origin /*origin*/) override { residents_.insert(key); }
  void on_evict(ExpertKey key) override {
    residents_.erase(key);
    predictions_[shape_.number(key)] = Prediction::kNone;
  }

  /// Of the layer that is most above its share; among equals, of the one that comes round last.
  std::optional<ExpertKey> victim(ExpertKey incoming, Origin /*origin*/,
                                  const KeySet& locked) const override {
    std::optional<ExpertKey> best;
    double most = -HUGE_VAL;
    for (std::uint32_t i = 0; i < shape_.num_layers; ++i) {
      const LayerId layer{(now_ + shape_.num_layers - i) % shape_.num_layers};
      const double above = excess(layer, incoming);
      if (!(above > most)) continue;
      const auto least =
          residents_.lowest_of_layer(layer, locked, [&](ExpertKey key) { return worth(key); });
      if (!least) continue;
      best = least;
      most = above;
    }
    return best;
  }

 private:
  enum class Prediction : std::uint8_t { kNone, kNamed, kFailed };
  static constexpr std::uint64_t kPassesPerShare = 8;

  double even_share() const {
    return static_cast<double>(shape_.slots) / std::max(1U, shape_.num_layers);
  }
  /// Slots beyond the layer's share, the incoming expert's own counted.
  double excess(LayerId layer, ExpertKey incoming) const {
    const auto held = static_cast<double>(residents_.of_layer(layer).size());
    return held + (layer == incoming.layer ? 1 : 0) - shares_[index(layer)];
  }
  double worth(ExpertKey key) const {
    const std::size_t number = shape_.number(key);
    if (predictions_[number] == Prediction::kFailed) return rates_[number] - 1;
    return rates_[number] + (predictions_[number] == Prediction::kNamed ? 1 : 0);
  }

  void share_out() {
    double total = 0;
    for (std::uint32_t l = 0; l < shape_.num_layers; ++l) {
      shares_[l] = demand(LayerId{l});
      total += shares_[l];
    }
    for (double& share : shares_) {
      share = total > 0 ? share * static_cast<double>(shape_.slots) / total : even_share();
    }
  }
  /// Different experts in the next `horizon` passes, as expected when each is drawn by its rate.
  double demand(LayerId layer) const {
    double sum = 0;
    for (std::uint32_t e = 0; e < shape_.num_experts; ++e) {
      const double rate = rates_[shape_.number({layer, ExpertId{e}})];
      if (rate > 0) sum += 1 - std::pow(1 - rate, options_.horizon);
    }
    return sum;
  }

  CacheShape shape_;
  Options options_;
  ResidentKeys residents_;
  std::vector<double> rates_;  // [num_keys], in [0, 1]: uses a pass
  std::vector<Prediction> predictions_;
  std::vector<double> shares_;  // [num_layers], of the slots
  std::uint64_t passes_ = 0;
  std::uint32_t now_ = 0;  // the layer of the last request
};

}  // namespace

extern const PolicyEntry kPredictedDemand{
    "predicted-demand", "ExpertFlow (PLEC), arXiv:2410.17954",
    [](const CacheShape& shape, std::uint64_t) {
      return std::unique_ptr<CachePolicy>(new PredictedDemand(shape, Options{}));
    }};

}  // namespace winnow::experts

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What the same token used when it was met before: the routers of the first layers see little but
// its embedding, and it is known before the pass begins (hash layers, arXiv:2106.04426, route by
// nothing else).
#include <algorithm>
#include <vector>

#include "experts/route_predictor.h"

namespace winnow::experts {
namespace {

struct Options {
  std::uint32_t layers = 2;      ///< of those with experts, from the first on
  std::size_t tokens = 4096;     ///< remembered at a time; a power of two
  float kept_at_meeting = 0.5F;  ///< of what is remembered, each time the token is met again
};

class TokenTable final : public RoutePredictor {
 public:
  TokenTable(const CacheShape& shape, const Options& options)
      : options_(options), remembered_(2 * std::size_t{shape.top_k}) {}

  void begin_pass(TokenId token) override { token_ = token; }

  bool score(LayerId layer, RouterPreview* /*preview*/, std::span<float> scores) override {
    const auto table = table_of(layer);
    if (table == tables_.size()) return false;
    const Place& place = tables_[table].places[number_of(token_)];
    if (place.uses.empty() || place.token != token_) return false;
    std::fill(scores.begin(), scores.end(), 0.0F);
    for (const Use& use : place.uses) scores[index(use.expert)] = use.weight;
    return true;
  }

  void learn(LayerId layer, std::span<const ExpertId> chosen) override {
    std::size_t table = table_of(layer);
    if (table == tables_.size()) {
      if (tables_.size() == options_.layers) return;
      tables_.push_back({layer, std::vector<Place>(options_.tokens)});
    }
    Place& place = tables_[table].places[number_of(token_)];
    if (place.token != token_) place = {token_, {}};
    for (Use& use : place.uses) use.weight *= options_.kept_at_meeting;
    for (const ExpertId expert : chosen) add(place.uses, expert);
    std::stable_sort(place.uses.begin(), place.uses.end(),
                     [](const Use& a, const Use& b) { return a.weight > b.weight; });
    if (place.uses.size() > remembered_) place.uses.resize(remembered_);
  }

 private:
  struct Use {
    ExpertId expert{};
    float weight = 0;
  };
  struct Place {
    TokenId token{-1};
    std::vector<Use> uses;
  };
  /// A place for each remainder of token ids: a later token takes an earlier one's.
  struct Table {
    LayerId layer{};
    std::vector<Place> places;
  };

  std::size_t table_of(LayerId layer) const {
    const auto found = std::find_if(tables_.begin(), tables_.end(),
                                    [layer](const Table& table) { return table.layer == layer; });
    return static_cast<std::size_t>(found - tables_.begin());
  }
  std::size_t number_of(TokenId token) const {
    return static_cast<std::size_t>(index(token)) % options_.tokens;
  }
  static void add(std::vector<Use>& uses, ExpertId expert) {
    const auto found = std::find_if(uses.begin(), uses.end(),
                                    [expert](const Use& use) { return use.expert == expert; });
    if (found == uses.end()) {
      uses.push_back({expert, 1});
    } else {
      found->weight += 1;
    }
  }

  Options options_;
  std::size_t remembered_;
  TokenId token_{};
  std::vector<Table> tables_;  // of the layers that were met first
};

}  // namespace

extern const PredictorEntry kTokenTable{
    "token-table", "after Hash Layers: arXiv:2106.04426", [](const CacheShape& shape) {
      return std::unique_ptr<RoutePredictor>(new TokenTable(shape, {}));
    }};

}  // namespace winnow::experts

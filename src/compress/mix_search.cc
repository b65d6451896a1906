// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/mix_search.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/rng.h"

namespace winnow::compress {
namespace {

// Factor vectors drawn for each mix that is wanted, before a round makes do with fewer mixes.
constexpr int kDrawsPerMix = 12;

class MixSearch {
 public:
  MixSearch(std::size_t groups, const std::function<Mix(std::span<const double>)>& solve,
            const std::function<std::vector<double>(std::span<const Mix>)>& measure,
            const MixSearchOptions& options)
      : solve_(solve), measure_(measure), options_(options), rng_(options.seed), centre_(groups) {}

  MixSearchResult run(Log& log) {
    double step = options_.step;
    for (int round = 0; round < options_.rounds; ++round) {
      log.check_interrupt();
      std::vector<Mix> mixes;
      std::vector<std::vector<double>> factors;
      if (round == 0) add(centre_, mixes, factors);
      const std::size_t wanted = mixes.size() + static_cast<std::size_t>(options_.offspring);
      for (int draw = 0; draw < kDrawsPerMix * options_.offspring && mixes.size() < wanted;
           ++draw) {
        add(moved(step), mixes, factors);
      }
      if (mixes.empty()) break;  // the budget leaves no other choice
      if (!keep_best(mixes, factors, round == 0)) step /= 2;
      log.progress("refining the mix", static_cast<std::uint64_t>(round) + 1,
                   static_cast<std::uint64_t>(options_.rounds), "rounds");
    }
    return result_;
  }

 private:
  /// Logarithms of factors around the best ones.
  std::vector<double> moved(double step) {
    std::vector<double> logarithms = centre_;
    for (double& value : logarithms) value += step * rng_.normal();
    return logarithms;
  }

  void add(const std::vector<double>& logarithms, std::vector<Mix>& mixes,
           std::vector<std::vector<double>>& factors) {
    std::vector<double> scales;
    for (const double value : logarithms) scales.push_back(std::exp(value));
    Mix mix = solve_(scales);
    if (!known_.insert(mix).second) return;
    mixes.push_back(std::move(mix));
    factors.push_back(logarithms);
  }

  /// Whether the best of these is better than all before.
  bool keep_best(const std::vector<Mix>& mixes, const std::vector<std::vector<double>>& factors,
                 bool first_round) {
    const std::vector<double> divergences = measure_(mixes);
    result_.measured += static_cast<int>(mixes.size());
    if (first_round) result_ = {mixes[0], divergences[0], divergences[0], result_.measured};
    const auto best = std::min_element(divergences.begin(), divergences.end());
    if (!(*best < result_.best)) return false;
    const auto place = static_cast<std::size_t>(best - divergences.begin());
    result_.mix = mixes[place];
    result_.best = *best;
    centre_ = factors[place];
    return true;
  }

  const std::function<Mix(std::span<const double>)>& solve_;
  const std::function<std::vector<double>(std::span<const Mix>)>& measure_;
  const MixSearchOptions& options_;
  Rng rng_;
  std::vector<double> centre_;  // logarithms of the factors of the best mix
  std::set<Mix> known_;
  MixSearchResult result_;
};

}  // namespace

MixSearchResult search_mix(std::size_t groups,
                           const std::function<Mix(std::span<const double> factors)>& solve,
                           const std::function<std::vector<double>(std::span<const Mix>)>& measure,
                           const MixSearchOptions& options, Log& log) {
  return MixSearch(groups, solve, measure, options).run(log);
}

}  // namespace winnow::compress

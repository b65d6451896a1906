// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Which of several proxies of a mix's damage to believe: the one that orders measured mixes best.
// The idea of EMQ ("EMQ: Evolving Training-free Proxies for Automated Mixed Precision
// Quantization", arXiv:2307.10554), which judges proxies by their rank correlation with measured
// accuracy. Proxies are sums over groups here, so that the knapsack can minimise them exactly;
// where EMQ evolves expressions, all products of two are tried.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/log.h"
#include "compress/mix_problem.h"

namespace winnow::compress {

/// What each option of each group is taken to cost, up to a factor.
struct Proxy {
  std::string name;
  DamageTable damages;
};

struct RankingOptions {
  int mixes = 24;          ///< measured, or as many different ones as there are; >= 2
  double least_tau = 0.8;  ///< on the mixes that did not choose the proxy
  /// Standard deviation of the logarithm of the factors that scatter the mixes.
  double step = 0.5;
  std::uint64_t seed = 1;
};

/// How a proxy orders the mixes (kendall_tau.h).
struct ProxyScore {
  std::string name;
  double choosing = 0;  ///< tau on the half that chooses
  double judging = 0;   ///< tau on the other half
};

struct Ranking {
  std::vector<ProxyScore> scores;  ///< of the proxies, in their order
  std::size_t best = 0;            ///< highest `choosing`, of those alike the first
  bool accepted = false;
};

/// The proxies themselves, then the geometric means, option by option, of every two of them.
std::vector<Proxy> with_products(std::vector<Proxy> proxies);

/// Different mixes that fit: each the optimum of one of the proxies in turn with factors at random
/// for the groups, among options at most two steps from those of `centre` on the group's frontier
/// of bytes and first proxy. Begins with `centre`. Few where the budget leaves few.
std::vector<Mix> scattered_mixes(const MixProblem& problem, std::span<const Proxy> proxies,
                                 const Mix& centre, const RankingOptions& options);

/// Cuts the mixes into halves at random; the proxy with the highest tau on one is accepted when its
/// tau on the other is at least `least_tau`. Never accepted with fewer than four mixes in a half.
Ranking rank_proxies(std::span<const Proxy> proxies, std::span<const Mix> mixes,
                     std::span<const double> divergences, const RankingOptions& options);

struct RankedChoice {
  Mix mix;
  Ranking ranking;
  std::vector<double> divergences;  ///< of the scattered mixes
  double first_kl = 0;              ///< of the optimum of proxies[0]
  std::optional<double> proxy_kl;   ///< of the optimum of the accepted proxy
  double best_kl = 0;               ///< of `mix`; never above `first_kl`
};

/// proxies: the first is the one to fall back on (the slopes). measure: divergences of some mixes,
/// nats. Deterministic for a seed. Warns where no proxy is accepted.
RankedChoice choose_by_proxy(
    const MixProblem& problem, const std::vector<Proxy>& proxies,
    const std::function<std::vector<double>(std::span<const Mix>)>& measure,
    const RankingOptions& options, Log& log);

Json to_json(const RankedChoice& choice, const RankingOptions& options);

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/ranked_proxies.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "base/error.h"
#include "base/rng.h"
#include "compress/kendall_tau.h"

namespace winnow::compress {
namespace {

// Options to either side of the centre's: each that a mix uses is quantised for being measured.
constexpr std::size_t kNeighbours = 2;
// Factors drawn for each mix that is wanted, before fewer will do.
constexpr int kDrawsPerSample = 12;
// Of three mixes two thirds of all orders have a tau of 1/3 or more.
constexpr std::size_t kLeastMixes = 4;

using Options = std::vector<std::size_t>;

/// Options by rising bytes that no other of the group matches in bytes and damage.
Options frontier(const std::vector<std::uint64_t>& bytes, const std::vector<double>& damages) {
  Options order(bytes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return bytes[a] != bytes[b] ? bytes[a] < bytes[b] : damages[a] < damages[b];
  });
  Options kept;
  for (const std::size_t option : order) {
    if (kept.empty() || damages[option] < damages[kept.back()]) kept.push_back(option);
  }
  return kept;
}

/// Options around `centre`, or it alone where another option matches it.
Options neighbours(const Options& frontier, std::size_t centre) {
  const auto found = std::find(frontier.begin(), frontier.end(), centre);
  if (found == frontier.end()) return {centre};
  const auto at = static_cast<std::size_t>(found - frontier.begin());
  const std::size_t begin = at - std::min(at, kNeighbours);
  const std::size_t end = std::min(at + kNeighbours + 1, frontier.size());
  return {frontier.begin() + static_cast<std::ptrdiff_t>(begin),
          frontier.begin() + static_cast<std::ptrdiff_t>(end)};
}

DamageTable scaled(const DamageTable& damages, double step, Rng& rng) {
  DamageTable result = damages;
  for (auto& row : result) {
    const double factor = std::exp(step * rng.normal());
    for (double& damage : row) damage *= factor;
  }
  return result;
}

std::vector<std::size_t> shuffled(std::size_t count, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t i = count; i-- > 1;) std::swap(order[i], order[rng.below(i + 1)]);
  return order;
}

double tau_on(std::span<const std::size_t> half, const Proxy& proxy, std::span<const Mix> mixes,
              std::span<const double> divergences) {
  std::vector<double> predicted, measured;
  for (const std::size_t m : half) {
    predicted.push_back(damage_of(proxy.damages, mixes[m]));
    measured.push_back(divergences[m]);
  }
  return kendall_tau(predicted, measured);
}

}  // namespace

std::vector<Proxy> with_products(std::vector<Proxy> proxies) {
  const std::size_t singles = proxies.size();
  for (std::size_t a = 0; a < singles; ++a) {
    for (std::size_t b = a + 1; b < singles; ++b) {
      Proxy product{proxies[a].name + "*" + proxies[b].name, proxies[a].damages};
      for (std::size_t g = 0; g < product.damages.size(); ++g) {
        for (std::size_t o = 0; o < product.damages[g].size(); ++o) {
          // Of the roots, so that no product of small numbers vanishes.
          product.damages[g][o] =
              std::sqrt(product.damages[g][o]) * std::sqrt(proxies[b].damages[g][o]);
        }
      }
      proxies.push_back(std::move(product));
    }
  }
  return proxies;
}

std::vector<Mix> scattered_mixes(const MixProblem& problem, std::span<const Proxy> proxies,
                                 const Mix& centre, const RankingOptions& options) {
  std::vector<Options> allowed;
  for (std::size_t g = 0; g < problem.bytes.size(); ++g) {
    allowed.push_back(neighbours(frontier(problem.bytes[g], proxies[0].damages[g]), centre[g]));
  }
  Rng rng(options.seed);
  std::vector<Mix> mixes = {centre};
  std::set<Mix> known = {centre};
  const auto wanted = static_cast<std::size_t>(options.mixes);
  for (int draw = 0; draw < kDrawsPerSample * options.mixes && mixes.size() < wanted; ++draw) {
    const Proxy& base = proxies[static_cast<std::size_t>(draw) % proxies.size()];
    Mix mix = problem.solve(scaled(base.damages, options.step, rng), allowed);
    if (known.insert(mix).second) mixes.push_back(std::move(mix));
  }
  return mixes;
}

Ranking rank_proxies(std::span<const Proxy> proxies, std::span<const Mix> mixes,
                     std::span<const double> divergences, const RankingOptions& options) {
  WINNOW_CHECK(!proxies.empty() && mixes.size() == divergences.size());
  const std::vector<std::size_t> order = shuffled(mixes.size(), options.seed);
  const std::size_t half = mixes.size() / 2;
  const auto judges = std::span(order).first(half);
  const auto choosers = std::span(order).subspan(half);
  Ranking ranking;
  for (const Proxy& proxy : proxies) {
    ranking.scores.push_back({proxy.name, tau_on(choosers, proxy, mixes, divergences),
                              tau_on(judges, proxy, mixes, divergences)});
  }
  for (std::size_t p = 1; p < proxies.size(); ++p) {
    if (ranking.scores[p].choosing > ranking.scores[ranking.best].choosing) ranking.best = p;
  }
  ranking.accepted =
      half >= kLeastMixes && ranking.scores[ranking.best].judging >= options.least_tau;
  return ranking;
}

RankedChoice choose_by_proxy(
    const MixProblem& problem, const std::vector<Proxy>& proxies,
    const std::function<std::vector<double>(std::span<const Mix>)>& measure,
    const RankingOptions& options, Log& log) {
  RankedChoice choice;
  const Mix first = problem.solve(proxies[0].damages);
  const std::vector<Mix> mixes = scattered_mixes(problem, proxies, first, options);
  choice.divergences = measure(mixes);
  const std::vector<Proxy> candidates = with_products(proxies);
  choice.ranking = rank_proxies(candidates, mixes, choice.divergences, options);
  choice.mix = first;
  choice.first_kl = choice.best_kl = choice.divergences[0];
  const ProxyScore& best = choice.ranking.scores[choice.ranking.best];
  if (!choice.ranking.accepted) {
    log.warn(fmt::format(
        "no proxy orders the {} measured mixes well enough: the best, {}, has a tau of {:.2f} on "
        "those that did not choose it ({:.2f} is asked for); {} decide",
        mixes.size(), best.name, best.judging, options.least_tau, proxies[0].name));
    return choice;
  }
  const std::vector<Mix> optimum = {problem.solve(candidates[choice.ranking.best].damages)};
  const double kl = measure(optimum).front();
  log.info(fmt::format("proxy {} (tau {:.2f} and {:.2f}): KL {:.6f}, {}: {:.6f}", best.name,
                       best.choosing, best.judging, kl, proxies[0].name, choice.first_kl));
  choice.proxy_kl = kl;
  if (kl < choice.best_kl) {
    choice.best_kl = kl;
    choice.mix = optimum.front();
  }
  return choice;
}

Json to_json(const RankedChoice& choice, const RankingOptions& options) {
  const ProxyScore& best = choice.ranking.scores[choice.ranking.best];
  Json json = {{"seed", options.seed},           {"mixes", choice.divergences.size()},
               {"mixes_kl", choice.divergences}, {"least_tau", options.least_tau},
               {"best_proxy", best.name},        {"accepted", choice.ranking.accepted},
               {"slopes_kl", choice.first_kl}};
  if (choice.proxy_kl) json["proxy_kl"] = *choice.proxy_kl;
  json["best_kl"] = choice.best_kl;
  json["taken"] = choice.best_kl < choice.first_kl ? "proxy" : "slopes";
  Json proxies = Json::array();
  for (const ProxyScore& score : choice.ranking.scores) {
    proxies.push_back(
        {{"name", score.name}, {"tau_choosing", score.choosing}, {"tau_judging", score.judging}});
  }
  json["proxies"] = proxies;
  return json;
}

}  // namespace winnow::compress

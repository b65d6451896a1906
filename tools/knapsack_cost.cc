// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// knapsack_cost: time of one choice of experts' types and replacements, on synthetic damages of a
// model of any size. Every expert has three matrices with TYPES types each, twelve by default, two
// narrower forms with as many, and three things that may stand for it; every layer four attention
// matrices. Damages fall to a quarter with each bit and are lognormal over experts and layers.
// Shares of the bytes of the largest types, from generous to the least that can be made, are solved
// one after the other; a bound from below is the Lagrangian one at the best price of a byte.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>

#include "base/error.h"
#include "base/rng.h"
#include "compress/expert_items.h"

namespace winnow::tools {
namespace {

using namespace compress;  // NOLINT: everything here is its

const ExpertReplacement kZero{"zero", "", engine::ExpertSubstitute::Kind::kZero,
                              model::ExpertKind::kZero, nullptr};
const ExpertReplacement kConstant{"constant", "", engine::ExpertSubstitute::Kind::kConstant,
                                  model::ExpertKind::kConstant, nullptr};
const ExpertReplacement kDropped{"dropped", "", engine::ExpertSubstitute::Kind::kDropped,
                                 std::nullopt, nullptr};
const ExpertReplacement kNarrow{"narrow", "", engine::ExpertSubstitute::Kind::kOwn,
                                model::ExpertKind::kFeedForward, nullptr};

struct Synthetic {
  MixProblem problem;
  DamageTable damages;
  std::vector<ExpertItem> items;
};

/// One matrix of so many weights in types of 2 to 8.5 bits.
std::size_t add_group(Synthetic& made, std::uint64_t weights, double damage, std::size_t types) {
  auto& bytes = made.problem.bytes.emplace_back();
  auto& damages = made.damages.emplace_back();
  for (std::size_t t = 0; t < types; ++t) {
    const double bits = 2 + 6.5 * static_cast<double>(t) / static_cast<double>(types - 1);
    bytes.push_back(static_cast<std::uint64_t>(bits / 8 * static_cast<double>(weights)) / 32 * 32);
    damages.push_back(damage * std::exp2(-2 * bits));
  }
  return made.problem.bytes.size() - 1;
}

Synthetic make(std::size_t layers, std::size_t experts, std::size_t types) {
  constexpr std::uint64_t kMatrix = std::uint64_t{2048} * 768;
  constexpr std::uint64_t kAttention = std::uint64_t{2048} * 4096;
  Synthetic made;
  Rng rng(1);
  for (std::uint32_t l = 0; l < layers; ++l) {
    const double layer = std::exp(rng.normal());
    for (int m = 0; m < 4; ++m) add_group(made, kAttention, 20 * layer, types);
    for (std::uint32_t e = 0; e < experts; ++e) {
      const double use = layer * std::exp(1.5 * rng.normal());
      ExpertItem item{LayerId{l}, ExpertId{e}, {}, {}, 8192};
      for (int m = 0; m < 3; ++m) {
        item.groups.push_back(add_group(made, kMatrix, use * std::exp(0.3 * rng.normal()), types));
      }
      for (const auto& [share, lost] : {std::pair(0.75, 0.02), std::pair(0.5, 0.08)}) {
        ReplacementOption narrow{&kNarrow, 0, 0, lost * use, {}, 1, {}};
        narrow.width = static_cast<std::uint32_t>(768 * share);
        for (int m = 0; m < 3; ++m) {
          const auto weights = static_cast<std::uint64_t>(share * double{kMatrix});
          narrow.groups.push_back(add_group(made, weights, 0.9 * use, types));
        }
        item.replacements.push_back(narrow);
      }
      item.replacements.push_back({&kZero, 0, 0, use, {}, 0, {}});
      item.replacements.push_back({&kConstant, 8192, 0, 0.7 * use, {}, 0, {}});
      item.replacements.push_back({&kDropped, 0, 0, 0.9 * use, {}, 0, {}});
      made.items.push_back(std::move(item));
    }
  }
  return made;
}

void measure(std::size_t layers, std::size_t experts, std::size_t types) {
  Synthetic made = make(layers, experts, types);
  const ExpertMix whole{Mix(made.problem.bytes.size(), types - 1),
                        std::vector<std::optional<std::size_t>>(made.items.size())};
  const std::uint64_t largest = size_of(made.problem, made.items, whole);
  const std::uint64_t least = least_bytes(made.problem, made.items);
  fmt::print("{} layers of {} experts: {} groups, {} items\n", layers, experts,
             made.problem.bytes.size(), made.items.size());
  for (const double share : {0.9, 0.6, 0.4, 0.25, 0.12}) {
    made.problem.room = std::max(static_cast<std::uint64_t>(share * double(largest)), least);
    const auto begin = std::chrono::steady_clock::now();
    const auto mix = solve_experts(made.problem, made.damages, made.items);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    WINNOW_CHECK(mix.has_value());
    const std::uint64_t size = size_of(made.problem, made.items, *mix);
    const auto replaced = std::count_if(mix->replaced.begin(), mix->replaced.end(),
                                        [](const auto& choice) { return choice.has_value(); });
    fmt::print("{:.2f} of the largest: {:.2f} s, {} experts replaced, {} bytes left of {}\n", share,
               took.count(), replaced, made.problem.room - size, made.problem.room);
  }
}

}  // namespace
}  // namespace winnow::tools

int main(int count, char** arguments) {
  const auto number = [&](int at, std::size_t otherwise) -> std::size_t {
    return count > at ? std::strtoull(arguments[at], nullptr, 10) : otherwise;
  };
  if (count > 4 || number(3, 12) < 2) {
    fmt::print(stderr, "usage: knapsack_cost [LAYERS] [EXPERTS] [TYPES, at least 2]\n");
    return 1;
  }
  winnow::tools::measure(number(1, 48), number(2, 128), number(3, 12));
  return 0;
}

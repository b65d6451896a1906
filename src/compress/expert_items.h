// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Whole experts as items of the knapsack: the types of their matrices together, or something that
// stands for the expert without them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/json.h"
#include "compress/expert_replacement.h"
#include "compress/knapsack.h"
#include "compress/mix_problem.h"
#include "compress/tensor_group.h"

namespace winnow::compress {

/// One thing that may stand for an expert.
struct ReplacementOption {
  const ExpertReplacement* how = nullptr;
  std::uint64_t bytes = 0;  ///< as the budget counts them
  double change = 0;        ///< `change_per_token`
  double predicted_kl = 0;  ///< nats per token
  ExpertId shared_with{};   ///< where it is a shared expert: whose matrices it uses
  /// Of a narrowed expert: inner channels that are left, and the groups of its matrices. Their
  /// bytes and damage come on top.
  std::uint32_t width = 0;
  std::vector<std::size_t> groups = {};
  /// `change` where the text uses all inner channels alike, and what that is predicted to cost;
  /// of narrowed experts, others lose the same.
  double change_elsewhere = 0;
  double predicted_elsewhere = 0;
};

struct ExpertItem {
  LayerId layer{};
  ExpertId expert{};
  std::vector<std::size_t> groups;  ///< of its matrices as they are, each one's alone
  std::vector<ReplacementOption> replacements;
  std::uint64_t router_bytes = 0;  ///< of its row, which all but a dropped expert have
  double use = 0;                  ///< sum of squared router weights over the text

  /// Of forms that were considered once (see `keep`).
  std::vector<std::size_t> unused_groups = {};

  /// From now on nothing stands for it.
  void keep() {
    for (const ReplacementOption& option : replacements) {
      unused_groups.insert(unused_groups.end(), option.groups.begin(), option.groups.end());
    }
    replacements.clear();
  }
  /// Of all its forms.
  template <typename Visit>
  void for_each_group(Visit visit) const {
    for (const std::size_t g : groups) visit(g);
    for (const std::size_t g : unused_groups) visit(g);
    for (const ReplacementOption& option : replacements) {
      for (const std::size_t g : option.groups) visit(g);
    }
  }
  /// The groups of the matrices that it has then.
  std::span<const std::size_t> groups_of(const std::optional<std::size_t>& replaced) const {
    return replaced ? replacements[*replaced].groups : groups;
  }
};

/// For the run record: its layer and number.
Json place_of(const ExpertItem& item);
/// For the run record: the options that it has, and which was taken.
Json to_json(const ExpertItem& item, const std::optional<std::size_t>& replaced);

/// What becomes of everything.
struct ExpertMix {
  Mix mix;  ///< of each group; without meaning for those that no expert has
  std::vector<std::optional<std::size_t>> replaced;  ///< [items]: index into `replacements`

  bool operator==(const ExpertMix&) const = default;
};

/// [layers]: nats per token that the mix's replacements are expected to cost.
std::vector<double> predicted_by_layer(std::span<const ExpertItem> items, const ExpertMix& mix,
                                       std::size_t layers);

/// [groups]: whether anything of the model has these matrices: none has those of an expert that
/// something else stands for.
std::vector<bool> groups_there(std::size_t groups, std::span<const ExpertItem> items,
                               const ExpertMix& mix);

/// The sum of the damages of all matrices that are there.
double damage_of_types(const DamageTable& damages, std::span<const ExpertItem> items,
                       const ExpertMix& mix);

/// The least predicted damage within the room, which has the rows of the router in it (those of
/// `problem.bytes` are not). First the experts as wholes, each with the best combinations of its
/// matrices' types beside its replacements, then the types of all matrices that stay, one by one.
/// Nothing when even the smallest choices do not fit.
std::optional<ExpertMix> solve_experts(const MixProblem& problem, const DamageTable& damages,
                                       std::span<const ExpertItem> items);

/// The second half of it: the same replacements, and the types of all that stays within the room,
/// in which the smallest have to fit.
ExpertMix solve_types(const MixProblem& problem, const DamageTable& damages,
                      std::span<const ExpertItem> items,
                      std::vector<std::optional<std::size_t>> replaced);

/// Of the routers' rows of all of them.
std::uint64_t router_bytes(std::span<const ExpertItem> items);

/// Bytes of the smallest mix, as `size_of` counts.
std::uint64_t least_bytes(const MixProblem& problem, std::span<const ExpertItem> items);

/// Bytes of a mix, router rows included.
std::uint64_t size_of(const MixProblem& problem, std::span<const ExpertItem> items,
                      const ExpertMix& mix);

/// Of all combinations of one option of each group those that no other beats in both bytes and
/// summed damage, by rising bytes. Of more than 64 only those on their lower convex hull, which
/// some price of a byte makes the best.
std::vector<Choice> best_combinations(const MixProblem& problem, const DamageTable& damages,
                                      std::span<const std::size_t> groups);

}  // namespace winnow::compress

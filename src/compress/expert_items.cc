// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/expert_items.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace winnow::compress {
namespace {

constexpr std::size_t kMostCombinations = 64;

/// Those that no other beats in both bytes and damage, by rising bytes.
void keep_front(std::vector<Choice>& choices) {
  std::sort(choices.begin(), choices.end(), [](const Choice& a, const Choice& b) {
    return a.bytes != b.bytes ? a.bytes < b.bytes : a.damage < b.damage;
  });
  std::size_t kept = 0;
  for (const Choice& choice : choices) {
    if (kept > 0 && !(choice.damage < choices[kept - 1].damage)) continue;
    choices[kept++] = choice;
  }
  choices.resize(kept);
}

/// Of a front, those that some price of a byte makes the cheapest.
void keep_hull(std::vector<Choice>& front) {
  const auto slope = [](const Choice& from, const Choice& to) {
    return (to.damage - from.damage) / static_cast<double>(to.bytes - from.bytes);
  };
  std::size_t kept = 0;
  for (const Choice& choice : front) {
    while (kept >= 2 && slope(front[kept - 2], front[kept - 1]) >= slope(front[kept - 1], choice)) {
      --kept;
    }
    front[kept++] = choice;
  }
  front.resize(kept);
}

bool is_dropped(const ReplacementOption& option) { return !option.how->kind.has_value(); }

/// What an expert in some form adds to the file beside its matrices.
std::uint64_t bytes_beside(const ExpertItem& item, const std::optional<std::size_t>& replaced) {
  if (!replaced) return item.router_bytes;
  const ReplacementOption& option = item.replacements[*replaced];
  return option.bytes + (is_dropped(option) ? 0 : item.router_bytes);
}

/// Groups that are no expert's.
std::vector<std::size_t> other_groups(std::size_t count, std::span<const ExpertItem> items) {
  std::vector<bool> in_item(count);
  for (const ExpertItem& item : items) {
    item.for_each_group([&](std::size_t g) { in_item[g] = true; });
  }
  std::vector<std::size_t> others;
  for (std::size_t g = 0; g < count; ++g) {
    if (!in_item[g]) others.push_back(g);
  }
  return others;
}

std::vector<Choice> choices_of(const MixProblem& problem, const DamageTable& damages,
                               std::size_t group) {
  std::vector<Choice> choices;
  for (std::size_t o = 0; o < problem.bytes[group].size(); ++o) {
    choices.push_back({problem.bytes[group][o], damages[group][o]});
  }
  return choices;
}

/// The choices of a whole expert, and which form each belongs to.
struct ItemChoices {
  std::vector<Choice> choices;
  std::vector<std::optional<std::size_t>> replaced;
};

ItemChoices choices_of(const MixProblem& problem, const DamageTable& damages,
                       const ExpertItem& item) {
  ItemChoices all;
  const auto add_form = [&](const std::optional<std::size_t>& replaced) {
    const double damage = replaced ? item.replacements[*replaced].predicted_kl : 0;
    for (Choice choice : best_combinations(problem, damages, item.groups_of(replaced))) {
      choice.bytes += bytes_beside(item, replaced);
      choice.damage += damage;
      all.choices.push_back(choice);
      all.replaced.push_back(replaced);
    }
  };
  add_form(std::nullopt);
  for (std::size_t r = 0; r < item.replacements.size(); ++r) add_form(r);
  return all;
}

/// Which experts are replaced, and by what, every expert in one piece.
std::optional<std::vector<std::optional<std::size_t>>> choose_replacements(
    const MixProblem& problem, const DamageTable& damages, std::span<const ExpertItem> items) {
  std::vector<std::vector<Choice>> choices;
  std::vector<std::vector<std::optional<std::size_t>>> forms;
  for (const ExpertItem& item : items) {
    ItemChoices of_item = choices_of(problem, damages, item);
    choices.push_back(std::move(of_item.choices));
    forms.push_back(std::move(of_item.replaced));
  }
  for (const std::size_t g : other_groups(problem.bytes.size(), items)) {
    choices.push_back(choices_of(problem, damages, g));
  }
  const auto picks = solve_knapsack(choices, problem.room, most_states(choices.size()));
  if (!picks) return std::nullopt;
  std::vector<std::optional<std::size_t>> replaced(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) replaced[i] = forms[i][(*picks)[i]];
  return replaced;
}

}  // namespace

std::vector<Choice> best_combinations(const MixProblem& problem, const DamageTable& damages,
                                      std::span<const std::size_t> groups) {
  std::vector<Choice> sums = {{}};
  for (const std::size_t g : groups) {
    std::vector<Choice> options = choices_of(problem, damages, g);
    keep_front(options);
    std::vector<Choice> longer;
    for (const Choice& sum : sums) {
      for (const Choice& option : options) {
        longer.push_back({sum.bytes + option.bytes, sum.damage + option.damage});
      }
    }
    keep_front(longer);
    // The hull of sums is made of sums of hulls' points alone.
    if (longer.size() > kMostCombinations) keep_hull(longer);
    sums = std::move(longer);
  }
  return sums;
}

std::uint64_t router_bytes(std::span<const ExpertItem> items) {
  std::uint64_t total = 0;
  for (const ExpertItem& item : items) total += item.router_bytes;
  return total;
}

std::uint64_t least_bytes(const MixProblem& problem, std::span<const ExpertItem> items) {
  const auto smallest = [&](std::size_t g) {
    return *std::min_element(problem.bytes[g].begin(), problem.bytes[g].end());
  };
  const auto size_of_form = [&](const ExpertItem& item, const std::optional<std::size_t>& form) {
    std::uint64_t bytes = bytes_beside(item, form);
    for (const std::size_t g : item.groups_of(form)) bytes += smallest(g);
    return bytes;
  };
  std::uint64_t total = 0;
  for (const std::size_t g : other_groups(problem.bytes.size(), items)) total += smallest(g);
  for (const ExpertItem& item : items) {
    std::uint64_t least = size_of_form(item, std::nullopt);
    for (std::size_t r = 0; r < item.replacements.size(); ++r) {
      least = std::min(least, size_of_form(item, r));
    }
    total += least;
  }
  return total;
}

std::uint64_t size_of(const MixProblem& problem, std::span<const ExpertItem> items,
                      const ExpertMix& mix) {
  std::uint64_t total = 0;
  for (const std::size_t g : other_groups(problem.bytes.size(), items)) {
    total += problem.bytes[g][mix.mix[g]];
  }
  for (std::size_t i = 0; i < items.size(); ++i) {
    total += bytes_beside(items[i], mix.replaced[i]);
    for (const std::size_t g : items[i].groups_of(mix.replaced[i])) {
      total += problem.bytes[g][mix.mix[g]];
    }
  }
  return total;
}

Json place_of(const ExpertItem& item) {
  return {{"layer", index(item.layer)}, {"expert", index(item.expert)}};
}

Json to_json(const ExpertItem& item, const std::optional<std::size_t>& replaced) {
  Json options = Json::array();
  for (const ReplacementOption& option : item.replacements) {
    options.push_back({{"replacement", std::string(option.how->name)},
                       {"bytes", option.bytes},
                       {"change", option.change},
                       {"predicted_kl", option.predicted_kl}});
    if (option.how->kind == model::ExpertKind::kShared) {
      options.back()["shared_with"] = index(option.shared_with);
    }
    if (option.width == 0) continue;
    options.back()["width"] = option.width;
    options.back()["change_elsewhere"] = option.change_elsewhere;
  }
  Json expert = place_of(item);
  if (replaced) {
    const ReplacementOption& chosen = item.replacements[*replaced];
    expert["chosen"] = std::string(chosen.how->name);
    if (chosen.width != 0) expert["width"] = chosen.width;
  }
  expert["options"] = std::move(options);
  return expert;
}

std::vector<double> predicted_by_layer(std::span<const ExpertItem> items, const ExpertMix& mix,
                                       std::size_t layers) {
  std::vector<double> sums(layers);
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (!mix.replaced[i]) continue;
    sums[index(items[i].layer)] += items[i].replacements[*mix.replaced[i]].predicted_kl;
  }
  return sums;
}

std::vector<bool> groups_there(std::size_t groups, std::span<const ExpertItem> items,
                               const ExpertMix& mix) {
  std::vector<bool> is_there(groups, true);
  for (std::size_t i = 0; i < items.size(); ++i) {
    items[i].for_each_group([&](std::size_t g) { is_there[g] = false; });
    for (const std::size_t g : items[i].groups_of(mix.replaced[i])) is_there[g] = true;
  }
  return is_there;
}

double damage_of_types(const DamageTable& damages, std::span<const ExpertItem> items,
                       const ExpertMix& mix) {
  const std::vector<bool> is_there = groups_there(damages.size(), items, mix);
  double total = 0;
  for (std::size_t g = 0; g < damages.size(); ++g) {
    if (is_there[g]) total += damages[g][mix.mix[g]];
  }
  return total;
}

std::optional<ExpertMix> solve_experts(const MixProblem& problem, const DamageTable& damages,
                                       std::span<const ExpertItem> items) {
  auto replaced = choose_replacements(problem, damages, items);
  if (!replaced) return std::nullopt;
  return solve_types(problem, damages, items, std::move(*replaced));
}

ExpertMix solve_types(const MixProblem& problem, const DamageTable& damages,
                      std::span<const ExpertItem> items,
                      std::vector<std::optional<std::size_t>> replaced) {
  ExpertMix result{Mix(problem.bytes.size()), std::move(replaced)};
  std::uint64_t room = problem.room;
  std::vector<std::size_t> groups = other_groups(problem.bytes.size(), items);
  for (std::size_t i = 0; i < items.size(); ++i) {
    room -= bytes_beside(items[i], result.replaced[i]);
    const auto own = items[i].groups_of(result.replaced[i]);
    groups.insert(groups.end(), own.begin(), own.end());
  }
  std::vector<std::vector<Choice>> choices;
  choices.reserve(groups.size());
  for (const std::size_t g : groups) choices.push_back(choices_of(problem, damages, g));
  const auto picks = solve_knapsack(choices, room, most_states(choices.size()));
  WINNOW_CHECK(picks.has_value());
  for (std::size_t i = 0; i < groups.size(); ++i) result.mix[groups[i]] = (*picks)[i];
  return result;
}

}  // namespace winnow::compress

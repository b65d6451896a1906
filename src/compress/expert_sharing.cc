// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/expert_sharing.h"

#include <algorithm>
#include <tuple>

namespace winnow::compress {

void add_likenesses(const LayerSums& sums, std::size_t first, const ExpertReplacement& shared,
                    std::vector<Likeness>& likenesses) {
  if (sums.experts.size() < 2) return;
  const ExpertReplacement& zero = *find_expert_replacement("zero");
  for (std::uint32_t e = 0; e < sums.experts.size(); ++e) {
    const ExpertId nearest = sums.experts[e].nearest;
    likenesses.push_back({first + e, first + index(nearest),
                          change_per_token(shared, sums, ExpertId{e}),
                          change_per_token(zero, sums, ExpertId{e})});
  }
}

DamageTable with_shared_use(const DamageTable& damages, std::span<const ExpertItem> items,
                            const ExpertMix& mix) {
  std::vector<double> more(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (!mix.replaced[i]) continue;
    const ReplacementOption& option = items[i].replacements[*mix.replaced[i]];
    if (option.how->kind != model::ExpertKind::kShared) continue;
    const std::size_t owner = i - index(items[i].expert) + index(option.shared_with);
    if (items[owner].use > 0) more[owner] += items[i].use / items[owner].use;
  }
  DamageTable table = damages;
  for (std::size_t i = 0; i < items.size(); ++i) {
    for (const std::size_t g : items[i].groups) {
      for (double& damage : table[g]) damage *= 1 + more[i];
    }
  }
  return table;
}

void share_alike(std::span<const Likeness> likenesses, const ExpertReplacement& shared,
                 const std::function<bool(const ExpertItem&)>& is_super,
                 std::span<ExpertItem> items) {
  constexpr double kWorth = 0.5;
  std::vector<Likeness> worthy;
  for (const Likeness& pair : likenesses) {
    const ExpertItem& item = items[pair.item];
    if (is_super(item)) continue;
    double other = pair.alone;
    for (const ReplacementOption& option : item.replacements) {
      if (option.width == 0) other = std::min(other, option.change);
    }
    if (pair.change <= kWorth * other) worthy.push_back(pair);
  }
  std::sort(worthy.begin(), worthy.end(), [](const Likeness& a, const Likeness& b) {
    return std::tie(a.change, a.item) < std::tie(b.change, b.item);
  });
  std::vector<bool> shares(items.size());
  std::vector<bool> is_owner(items.size());
  for (const Likeness& pair : worthy) {
    if (is_owner[pair.item] || shares[pair.owner]) continue;
    shares[pair.item] = is_owner[pair.owner] = true;
    items[pair.item].replacements.push_back(
        {&shared, 0, pair.change, 0, items[pair.owner].expert, 0, {}});
    items[pair.owner].keep();
  }
}

}  // namespace winnow::compress

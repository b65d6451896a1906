// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Which experts may use the matrices of another one, of those that are much alike.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "compress/expert_items.h"

namespace winnow::compress {

/// What it would change that an expert uses the matrices of the one most like it.
struct Likeness {
  std::size_t item, owner;  ///< places among the items
  double change;            ///< `change_per_token`
  double alone;             ///< of nothing in its place
};

/// Those of a layer whose likeness was looked at, its experts being items from `first` on.
void add_likenesses(const LayerSums& sums, std::size_t first, const ExpertReplacement& shared,
                    std::vector<Likeness>& likenesses);

/// `damages`, those of matrices that more experts use times the share of their use. items: layer
/// after layer, all experts of each.
DamageTable with_shared_use(const DamageTable& damages, std::span<const ExpertItem> items,
                            const ExpertMix& mix);

/// Adds `shared` to the replacements of experts. One whose matrices another one uses has to keep
/// them, so it is to be worth it: pairs are taken by rising change, while it is at most half of
/// what the least of the expert's other replacements changes. Super experts lend and do not borrow.
void share_alike(std::span<const Likeness> likenesses, const ExpertReplacement& shared,
                 const std::function<bool(const ExpertItem&)>& is_super,
                 std::span<ExpertItem> items);

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What experts are worth to text of other kinds than the calibration's. Which experts a token goes
// to depends on the kind of text, so an expert that the calibration hardly uses seems to cost next
// to nothing, whatever becomes of it; the text of some language or format may go nowhere else. A
// share of the text is therefore taken to use the experts of a layer alike, and to lose in each
// what they lose on average: (1 - share) d_e + share * mean of d over the layer's experts that
// lose anything. Sums over the experts of a layer stay the same, and so do the layers' parts of
// the whole.
#pragma once

#include <span>

#include "compress/expert_items.h"
#include "compress/mix_problem.h"
#include "compress/tensor_group.h"

namespace winnow::compress {

/// Damages of types, [groups][options]; each is averaged over the groups of the same role, layer
/// and width. Those of groups without experts of their own stay. share: in [0, 1].
DamageTable with_other_text(const DamageTable& damages, std::span<const TensorGroup> groups,
                            double share);

/// How much of a narrowed expert's loss on other text is that of channels which are used alike,
/// and not as the calibration uses them.
inline constexpr double kUnlikeChannels = 0.2;

/// Predicted divergences of replacements, averaged over the same replacement, at the same width, of
/// the layer's other experts that may have it. Narrowed experts lose more on other text, which uses
/// other channels too (`kUnlikeChannels`).
std::vector<ExpertItem> with_other_text(std::span<const ExpertItem> items, double share);

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How often the router chooses the expert.
#include "compress/expert_selection.h"

namespace winnow::compress {

extern const ExpertSelection kFrequency{
    "frequency", "a baseline of arXiv:2310.01334", true,
    [](const SelectionContext& context, std::size_t keep) {
      return highest(context.sums("hits", context.num_experts()), context.is_protected, keep);
    }};

}  // namespace winnow::compress

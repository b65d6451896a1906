// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The sum of the norms of what the expert adds to the layer's output.
#include "compress/expert_selection.h"

namespace winnow::compress {

extern const ExpertSelection kGatedNormSum{
    "gated-norm-sum", "weighted EAN of arXiv:2510.13999", true,
    [](const SelectionContext& context, std::size_t keep) {
      return highest(context.sums("gated_output_norms", context.num_experts()),
                     context.is_protected, keep);
    }};

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The mean norm of what the expert adds to the layer's output, with the weight that the router
// really gives it.
#include "compress/expert_selection.h"

namespace winnow::compress {

extern const ExpertSelection kReap{
    "reap", "REAP, arXiv:2510.13999", true, [](const SelectionContext& context, std::size_t keep) {
      return highest(mean_over_hits(context, "gated_output_norms"), context.is_protected, keep);
    }};

}  // namespace winnow::compress

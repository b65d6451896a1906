// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The mean squared norm of the expert's output over the tokens that it gets.
#include "compress/expert_selection.h"

namespace winnow::compress {

extern const ExpertSelection kMeanSquareNorm{
    "mean-square-norm", "MSAN, arXiv:2606.15716", true,
    [](const SelectionContext& context, std::size_t keep) {
      return highest(mean_over_hits(context, "output_squares"), context.is_protected, keep);
    }};

}  // namespace winnow::compress

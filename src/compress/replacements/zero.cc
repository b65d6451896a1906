// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Nothing: the router still sends tokens there, and they get no output.
#include "compress/expert_replacement.h"

namespace winnow::compress {
namespace {

double squared_change(const ExpertSums& sums) { return sums.squared_outputs; }

}  // namespace

extern const ExpertReplacement kZero{"zero", "MoE++, arXiv:2410.07348",
                                     engine::ExpertSubstitute::Kind::kZero,
                                     model::ExpertKind::kZero, squared_change};

}  // namespace winnow::compress

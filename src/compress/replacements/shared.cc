// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The expert's row of the router stays, and leads to the matrices of another expert of the layer:
// what M-SMoE's merging of a group would be with all weight on one member, which experts that are
// near copies of each other need no more than.
#include "compress/expert_replacement.h"

namespace winnow::compress {
namespace {

double squared_change(const ExpertSums& sums) { return sums.squared_differences; }

}  // namespace

extern const ExpertReplacement kShared{"shared", "groups as in M-SMoE, arXiv:2310.01334",
                                       engine::ExpertSubstitute::Kind::kOwn,
                                       model::ExpertKind::kShared, squared_change};

}  // namespace winnow::compress

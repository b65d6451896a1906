// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The expert's input is its output ("copy expert").
#include "compress/expert_replacement.h"

namespace winnow::compress {
namespace {

double squared_change(const ExpertSums& sums) { return sums.squared_residuals; }

}  // namespace

extern const ExpertReplacement kIdentity{"identity", "MoE++, arXiv:2410.07348",
                                         engine::ExpertSubstitute::Kind::kIdentity,
                                         model::ExpertKind::kIdentity, squared_change};

}  // namespace winnow::compress

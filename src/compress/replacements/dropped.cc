// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Gone, its row of the router too: a token goes to the next best expert, as if the logit were minus
// infinity.
#include "compress/expert_replacement.h"

namespace winnow::compress {
namespace {

double squared_change(const ExpertSums& sums) { return sums.squared_reroutes; }

}  // namespace

extern const ExpertReplacement kDropped{"dropped", "REAP, arXiv:2510.13999 (how it is left out)",
                                        engine::ExpertSubstitute::Kind::kDropped, std::nullopt,
                                        squared_change};

}  // namespace winnow::compress

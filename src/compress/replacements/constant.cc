// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A vector: MoE++'s constant experts, and MoNE's novices. Where those take the mean of the outputs,
// this is the mean weighted with the squares of the router's weights, which changes the layer's
// output least: sum g^2 |f - m|^2 = sum g^2 |f|^2 - |sum g^2 f|^2 / sum g^2.
#include <algorithm>

#include "compress/expert_replacement.h"

namespace winnow::compress {
namespace {

double squared_change(const ExpertSums& sums) {
  if (!(sums.squared_weights > 0)) return 0;
  double square = 0;
  for (const double value : sums.outputs) square += value * value;
  return std::max(sums.squared_outputs - square / sums.squared_weights, 0.0);
}

}  // namespace

extern const ExpertReplacement kConstant{
    "constant", "MoE++, arXiv:2410.07348; MoNE, arXiv:2507.00390",
    engine::ExpertSubstitute::Kind::kConstant, model::ExpertKind::kConstant, squared_change};

}  // namespace winnow::compress

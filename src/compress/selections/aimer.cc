// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Without data: the flatter an expert's weights, the sooner it goes. Flatness is mean |w| over the
// root of the mean square, of all its matrices together.
#include <cmath>

#include "compress/expert_selection.h"

namespace winnow::compress {
namespace {

using model::Role;

double flatness(const model::Checkpoint& source, LayerId layer, ExpertId expert) {
  double magnitudes = 0;
  double squares = 0;
  double count = 0;
  std::vector<float> row;
  for (const Role role : {Role::kExpertGateProj, Role::kExpertUpProj, Role::kExpertDownProj}) {
    const model::TensorRef ref = source.at(role, layer, expert);
    row.resize(ref.cols);
    for (std::size_t r = 0; r < ref.rows; ++r) {
      source.read_floats(ref, r, 1, row);
      for (const float w : row) {
        magnitudes += std::fabs(double{w});
        squares += double{w} * w;
      }
    }
    count += static_cast<double>(ref.rows * ref.cols);
  }
  return squares > 0 ? magnitudes / count / std::sqrt(squares / count) : 1.0;
}

std::vector<ExpertId> select(const SelectionContext& context, std::size_t keep) {
  std::vector<double> scores(context.num_experts());
  for (std::uint32_t e = 0; e < scores.size(); ++e) {
    scores[e] = -flatness(context.source, context.layer, ExpertId{e});
  }
  return highest(scores, context.is_protected, keep);
}

}  // namespace

extern const ExpertSelection kAimer{"aimer", "AIMER, arXiv:2603.18492", false, select};

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/output_changes.h"

#include <algorithm>

#include "base/error.h"

namespace winnow::compress {

void OutputRecord::on_experts(LayerId /*layer*/, const engine::ExpertSlots& slots) {
  experts.assign(slots.experts.begin(), slots.experts.end());
  first.assign(slots.first.begin(), slots.first.end());
  weights.assign(slots.weights.begin(), slots.weights.end());
  outputs.reshape(slots.outputs.rows, slots.outputs.cols);
  for (std::size_t s = 0; s < slots.outputs.rows; ++s) {
    std::copy_n(slots.outputs.row(s).data(), slots.outputs.cols, outputs.row(s).data());
  }
}

void ChangeSum::on_experts(LayerId /*layer*/, const engine::ExpertSlots& slots) {
  WINNOW_CHECK(std::equal(slots.first.begin(), slots.first.end(), original_.first.begin(),
                          original_.first.end()));
  for (std::size_t i = 0; i < slots.experts.size(); ++i) {
    double& sum = squares_[index(slots.experts[i])];
    for (std::size_t s = slots.first[i]; s < slots.first[i + 1]; ++s) sum += change(slots, s);
  }
}

double ChangeSum::change(const engine::ExpertSlots& slots, std::size_t slot) const {
  const auto now = slots.outputs.row(slot);
  const auto before = original_.outputs.row(slot);
  double sum = 0;
  for (std::size_t j = 0; j < now.size(); ++j) {
    const double difference = double{now[j]} - double{before[j]};
    sum += difference * difference;
  }
  return double{slots.weights[slot]} * double{slots.weights[slot]} * sum;
}

}  // namespace winnow::compress

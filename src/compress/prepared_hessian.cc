// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/prepared_hessian.h"

#include <algorithm>

namespace winnow::compress {

ConstMatrix PreparedHessian::dense(const Hessian& hessian,
                                   std::optional<tensor::Matrix<float>>& made) {
  if (!made) {
    const tensor::Matrix<double> values = hessian.dense();
    made.emplace(hessian.size(), hessian.size());
    std::copy(values.flat().begin(), values.flat().end(), made->flat().begin());
  }
  return std::as_const(*made).view();
}

const DampedHessian& PreparedHessian::damped(double damping, std::size_t block_size,
                                             ColumnOrder order, std::size_t coded_together) {
  const auto key = std::make_tuple(damping, block_size, order, coded_together);
  const auto found = damped_.find(key);
  if (found != damped_.end()) return found->second;
  return damped_.emplace(key, damp(calibration_, damping, block_size, order, coded_together))
      .first->second;
}

}  // namespace winnow::compress

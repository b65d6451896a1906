// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/damped_hessian.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "base/error.h"
#include "compress/linear_algebra.h"

namespace winnow::compress {
namespace {

std::vector<std::size_t> counted(std::size_t count, std::size_t first = 0) {
  std::vector<std::size_t> indices(count);
  std::iota(indices.begin(), indices.end(), first);
  return indices;
}

/// Indices of the sums of stretches of `size` values, from `first` to `last`, by falling sum.
std::vector<std::size_t> by_falling_sum(const std::vector<double>& values, std::size_t first,
                                        std::size_t last, std::size_t size) {
  const auto sum = [&](std::size_t i) {
    const auto begin = values.begin() + static_cast<std::ptrdiff_t>(i * size);
    return std::accumulate(begin, begin + static_cast<std::ptrdiff_t>(size), 0.0);
  };
  std::vector<std::size_t> stretches = counted((last - first) / size, first / size);
  std::stable_sort(stretches.begin(), stretches.end(),
                   [&](std::size_t a, std::size_t b) { return sum(a) > sum(b); });
  return stretches;
}

std::vector<std::size_t> processing_order(const std::vector<double>& diagonal,
                                          std::size_t block_size, ColumnOrder column_order,
                                          std::size_t coded_together) {
  if (column_order == ColumnOrder::kStorage) return counted(diagonal.size());
  std::vector<std::size_t> order;
  for (const std::size_t block : by_falling_sum(diagonal, 0, diagonal.size(), block_size)) {
    const std::size_t first = block * block_size;
    for (const std::size_t run :
         by_falling_sum(diagonal, first, first + block_size, coded_together)) {
      for (std::size_t i = 0; i < coded_together; ++i) order.push_back(run * coded_together + i);
    }
  }
  return order;
}

tensor::Matrix<double> permuted(const tensor::Matrix<double>& h,
                                const std::vector<std::size_t>& order) {
  tensor::Matrix<double> result(h.rows(), h.rows());
  for (std::size_t i = 0; i < h.rows(); ++i) {
    const auto from = h.row(order[i]);
    const auto to = result.row(i);
    for (std::size_t j = 0; j < h.rows(); ++j) to[j] = from[order[j]];
  }
  return result;
}

}  // namespace

DampedHessian damp(const Hessian& hessian, double damping, std::size_t block_size,
                   ColumnOrder column_order, std::size_t coded_together) {
  const std::size_t n = hessian.size();
  WINNOW_CHECK(damping > 0 && n % block_size == 0 && block_size % coded_together == 0);
  DampedHessian result;
  result.order = processing_order(hessian.diagonal(), block_size, column_order, coded_together);
  std::optional<tensor::Matrix<float>> factor;
  tensor::Matrix<double> h;
  // A Gram matrix has eigenvalues of 0 or more but for rounding, so a ridge near the trace is
  // always enough: the loop ends.
  for (; !factor; damping *= 10) {
    require_factor(damping);
    result.ridge = ridge_of(hessian, damping);
    h = hessian.dense(result.ridge);
    factor = inverse_factor(permuted(h, result.order).view());
  }
  result.factor = std::move(*factor);
  result.h = tensor::Matrix<float>(n, n);
  std::copy(h.flat().begin(), h.flat().end(), result.h.flat().begin());
  result.conditional.resize(n);
  for (std::size_t i = 0; i < n; ++i) {
    const double diagonal = result.factor.row(i)[i];
    result.conditional[result.order[i]] = static_cast<float>(1.0 / (diagonal * diagonal));
  }
  return result;
}

}  // namespace winnow::compress

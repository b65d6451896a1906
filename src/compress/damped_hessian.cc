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

std::vector<std::size_t> processing_order(const std::vector<double>& diagonal,
                                          std::size_t block_size, ColumnOrder column_order) {
  if (column_order == ColumnOrder::kStorage) return counted(diagonal.size());
  std::vector<double> block_sums(diagonal.size() / block_size);
  for (std::size_t j = 0; j < diagonal.size(); ++j) block_sums[j / block_size] += diagonal[j];
  std::vector<std::size_t> blocks = counted(block_sums.size());
  std::stable_sort(blocks.begin(), blocks.end(),
                   [&](std::size_t a, std::size_t b) { return block_sums[a] > block_sums[b]; });
  std::vector<std::size_t> order;
  for (const std::size_t block : blocks) {
    std::vector<std::size_t> columns = counted(block_size, block * block_size);
    std::stable_sort(columns.begin(), columns.end(),
                     [&](std::size_t a, std::size_t b) { return diagonal[a] > diagonal[b]; });
    order.insert(order.end(), columns.begin(), columns.end());
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
                   ColumnOrder column_order) {
  const std::size_t n = hessian.size();
  WINNOW_CHECK(damping > 0 && n % block_size == 0);
  DampedHessian result;
  result.order = processing_order(hessian.diagonal(), block_size, column_order);
  std::optional<tensor::Matrix<float>> factor;
  tensor::Matrix<double> h;
  // A Gram matrix has eigenvalues of 0 or more but for rounding, so a ridge near the trace is
  // always enough: the loop ends.
  for (; !factor; damping *= 10) {
    WINNOW_CHECK(damping < 1e6);
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

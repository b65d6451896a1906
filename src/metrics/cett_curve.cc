// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "metrics/cett_curve.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace winnow::metrics {
namespace {

constexpr std::size_t kMostRows = 256;

tensor::Matrix<float> transposed(tensor::MatrixView<const float> matrix) {
  tensor::Matrix<float> result(matrix.cols, matrix.rows);
  for (std::size_t r = 0; r < matrix.rows; ++r) {
    for (std::size_t c = 0; c < matrix.cols; ++c) result.row(c)[r] = matrix.row(r)[c];
  }
  return result;
}

double norm_of(const std::vector<float>& values) {
  // Four chains, which the processor adds side by side.
  double sums[4] = {};
  for (std::size_t i = 0; i < values.size(); ++i) sums[i % 4] += double{values[i]} * values[i];
  return std::sqrt((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

}  // namespace

CettCurve::Steps CettCurve::steps_of(const LayerSample::Row& row,
                                     tensor::MatrixView<const float> columns,
                                     const std::vector<double>& norms) {
  std::vector<double> sizes(norms.size());
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    sizes[i] = std::fabs(double{row.inner[i]}) * norms[i];
  }
  std::vector<std::uint32_t> order(sizes.size());
  std::iota(order.begin(), order.end(), 0U);
  std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    return sizes[a] != sizes[b] ? sizes[a] < sizes[b] : a < b;
  });
  Steps steps;
  std::vector<float> dropped(columns.cols);
  for (const std::uint32_t i : order) {
    const auto column = columns.row(i);
    for (std::size_t d = 0; d < dropped.size(); ++d) dropped[d] += row.inner[i] * column[d];
    steps.sizes.push_back(sizes[i]);
    steps.errors.push_back(norm_of(dropped));
  }
  const double whole = steps.errors.empty() ? 0 : steps.errors.back();
  if (whole == 0) return {};
  for (double& error : steps.errors) error /= whole;
  return steps;
}

CettCurve::CettCurve(const LayerNeurons& layer) {
  const std::vector<LayerSample::Row>& rows = layer.sample->rows;
  const std::size_t stride = (rows.size() + kMostRows - 1) / kMostRows;
  std::vector<std::vector<std::size_t>> rows_of(layer.experts);
  for (std::size_t r = 0; r < rows.size(); r += stride) {
    rows_of[index(rows[r].expert)].push_back(r);
  }
  for (std::uint32_t e = 0; e < layer.experts; ++e) {
    if (rows_of[e].empty()) continue;
    const tensor::Matrix<float> down = layer.down(ExpertId{e});
    const std::vector<double> norms = column_norms(down.view());
    const tensor::Matrix<float> columns = transposed(down.view());
    const std::size_t first = tokens_.size();
    tokens_.resize(first + rows_of[e].size());
    layer.pool.run(rows_of[e].size(), [&](std::size_t i, unsigned) {
      tokens_[first + i] = steps_of(rows[rows_of[e][i]], columns.view(), norms);
    });
  }
  std::erase_if(tokens_, [](const Steps& steps) { return steps.sizes.empty(); });
  for (const Steps& steps : tokens_) largest_ = std::max(largest_, steps.sizes.back());
}

double CettCurve::at(double threshold) const {
  double sum = 0;
  for (const Steps& steps : tokens_) {
    const auto end = std::upper_bound(steps.sizes.begin(), steps.sizes.end(), threshold);
    if (end == steps.sizes.begin()) continue;
    sum += steps.errors[static_cast<std::size_t>(end - steps.sizes.begin()) - 1];
  }
  return tokens_.empty() ? 0 : sum / static_cast<double>(tokens_.size());
}

double CettCurve::threshold_of(double level) const {
  if (level <= 0) return 0;
  if (level >= 1) return std::numeric_limits<double>::infinity();
  double below = 0;
  double above = largest_;
  for (int step = 0; step < 60; ++step) {
    const double middle = (below + above) / 2;
    (at(middle) <= level ? below : above) = middle;
  }
  return below;
}

}  // namespace winnow::metrics

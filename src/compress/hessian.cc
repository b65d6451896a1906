// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/hessian.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "compress/hadamard.h"

namespace winnow::compress {
namespace {

// Rows of H per item of work: short enough to share out, and a multiple of what kernels take at a
// time.
constexpr std::size_t kPanel = 24;

void require_weights(std::span<const float> weights) {
  for (std::size_t t = 0; t < weights.size(); ++t) {
    if (weights[t] >= 0 && std::isfinite(weights[t])) continue;
    fail_data("the weight of token {} is {}; expected a finite number of 0 or more", t, weights[t]);
  }
}

/// A row's sum of squares is finite only if its values are: it is the quick look.
void require_finite(tensor::MatrixView<const float> x, os::ThreadPool& pool,
                    const kernels::Kernels& kernels) {
  const std::size_t parts = std::min<std::size_t>(x.rows, pool.size());
  std::vector<std::size_t> first_suspect(parts, x.rows);
  pool.run(parts, [&](std::size_t part, unsigned) {
    const os::Range range = os::split(x.rows, parts, part);
    for (std::size_t t = range.begin; t < range.end; ++t) {
      const float* const row = x.row(t).data();
      if (std::isfinite(kernels.dot(row, row, x.cols))) continue;
      first_suspect[part] = t;
      return;
    }
  });
  const auto first = std::min_element(first_suspect.begin(), first_suspect.end());
  for (std::size_t t = first == first_suspect.end() ? x.rows : *first; t < x.rows; ++t) {
    const auto row = x.row(t);
    if (std::all_of(row.begin(), row.end(), [](float v) { return std::isfinite(v); })) continue;
    fail_data("an activation is not finite (row {} of {}); the model or its file is damaged", t,
              x.rows);
  }
}

}  // namespace

void Hessian::add(tensor::MatrixView<const float> x, std::span<const float> weights,
                  os::ThreadPool& pool, const kernels::Kernels& kernels) {
  constexpr std::size_t kStretch = kernels::kGramTokens;
  WINNOW_CHECK(x.cols == size_ && (weights.empty() || weights.size() == x.rows));
  require_finite(x, pool, kernels);
  require_weights(weights);
  std::vector<const float*> rows(x.rows);
  for (std::size_t t = 0; t < x.rows; ++t) rows[t] = x.row(t).data();
  const std::size_t panels = (size_ + kPanel - 1) / kPanel;
  pool.run(panels, [&](std::size_t item, unsigned) {
    const std::size_t begin = (panels - 1 - item) * kPanel;  // the longest rows first
    const std::size_t end = std::min(begin + kPanel, size_);
    for (std::size_t first = 0; first < x.rows; first += kStretch) {
      kernels.add_gram(&rows[first], weights.empty() ? nullptr : &weights[first],
                       std::min(kStretch, x.rows - first), begin, end, values_.data());
    }
  });
  tokens_ += static_cast<double>(x.rows);
  if (weights.empty()) weight_ += static_cast<double>(x.rows);
  for (const float w : weights) weight_ += w;
}

void Hessian::add(tensor::MatrixView<const float> x, std::span<const float> weights,
                  os::ThreadPool& pool) {
  add(x, weights, pool, kernels::select_kernels("scalar", os::CpuFeatures{}));
}

void Hessian::add(const Hessian& other, double factor) {
  WINNOW_CHECK(other.size_ == size_);
  for (std::size_t i = 0; i < values_.size(); ++i) values_[i] += factor * other.values_[i];
  tokens_ += factor * other.tokens_;
  weight_ += factor * other.weight_;
}

Hessian Hessian::of_divided_inputs(std::span<const float> scales) const {
  WINNOW_CHECK(scales.size() == size_);
  Hessian result = *this;
  for (std::size_t i = 0; i < size_; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      result.values_[packed(i, j)] /= double{scales[i]} * double{scales[j]};
    }
  }
  return result;
}

Hessian Hessian::of_rotated_inputs(std::size_t width) const {
  WINNOW_CHECK(width > 0 && size_ % width == 0);
  tensor::Matrix<double> full = dense();
  for (std::size_t i = 0; i < size_; ++i) hadamard_each(full.row(i), width);
  std::vector<double> column(size_);
  Hessian result = *this;
  for (std::size_t j = 0; j < size_; ++j) {
    for (std::size_t i = 0; i < size_; ++i) column[i] = full.row(i)[j];
    hadamard_each(std::span(column), width);
    for (std::size_t i = j; i < size_; ++i) result.values_[packed(i, j)] = column[i];
  }
  return result;
}

Hessian Hessian::identity(std::size_t size) {
  Hessian result(size);
  for (std::size_t i = 0; i < size; ++i) result.values_[packed(i, i)] = 1.0;
  result.tokens_ = result.weight_ = 1.0;
  return result;
}

Hessian Hessian::of_reordered_inputs(std::span<const std::uint32_t> order) const {
  WINNOW_CHECK(order.size() == size_);
  return of_some_inputs(order);
}

Hessian Hessian::of_inputs_apart() const {
  Hessian result(size_);
  for (std::size_t i = 0; i < size_; ++i) result.values_[packed(i, i)] = at(i, i);
  result.tokens_ = tokens_;
  result.weight_ = weight_;
  return result;
}

Hessian Hessian::of_some_inputs(std::span<const std::uint32_t> kept) const {
  Hessian result(kept.size());
  for (std::size_t i = 0; i < kept.size(); ++i) {
    for (std::size_t j = 0; j <= i; ++j) result.values_[packed(i, j)] = at(kept[i], kept[j]);
  }
  result.tokens_ = tokens_;
  result.weight_ = weight_;
  return result;
}

std::vector<double> Hessian::diagonal() const {
  std::vector<double> diagonal(size_);
  for (std::size_t j = 0; j < size_; ++j) diagonal[j] = values_[packed(j, j)];
  return diagonal;
}

double Hessian::trace() const {
  double sum = 0;
  for (std::size_t j = 0; j < size_; ++j) sum += values_[packed(j, j)];
  return sum;
}

tensor::Matrix<double> Hessian::dense(double ridge) const {
  tensor::Matrix<double> full(size_, size_);
  for (std::size_t i = 0; i < size_; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      full.row(i)[j] = full.row(j)[i] = values_[packed(i, j)];
    }
    full.row(i)[i] += ridge;
  }
  return full;
}

double ridge_of(const Hessian& hessian, double damping) {
  const double mean =
      hessian.trace() / static_cast<double>(std::max<std::size_t>(1, hessian.size()));
  return mean > 0 ? damping * mean : 1.0;
}

void require_factor(double damping) {
  if (damping < 1e6) return;
  fail_data(
      "the sums of its inputs on this text are too large to be factored; is the model damaged?");
}

Hessian shrunk_towards(const Hessian& expert, const Hessian& layer, double pseudo_tokens) {
  Hessian result = expert;
  if (!(layer.tokens() > 0 && layer.trace() > 0)) return result;
  double rho = 1.0;
  if (expert.tokens() > 0 && expert.trace() > 0) {
    rho = (expert.trace() / expert.tokens()) / (layer.trace() / layer.tokens());
  }
  result.add(layer, pseudo_tokens * rho / layer.tokens());
  return result;
}

}  // namespace winnow::compress

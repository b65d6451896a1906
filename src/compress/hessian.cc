// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/hessian.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "compress/linear_algebra.h"

namespace winnow::compress {
namespace {

constexpr std::size_t kStretch = 64;  // tokens whose products are summed in f32
constexpr std::size_t kTile = 64;     // rows and columns of H per item of work

void require_finite(tensor::MatrixView<const float> x, std::span<const float> weights) {
  for (std::size_t t = 0; t < x.rows; ++t) {
    const auto row = x.row(t);
    if (!std::all_of(row.begin(), row.end(), [](float v) { return std::isfinite(v); })) {
      fail_data("an activation is not finite (row {} of {}); the model or its file is damaged", t,
                x.rows);
    }
    if (!weights.empty() && !(weights[t] >= 0 && std::isfinite(weights[t]))) {
      fail_data("the weight of token {} is {}; expected a finite number of 0 or more", t,
                weights[t]);
    }
  }
}

}  // namespace

void Hessian::add(tensor::MatrixView<const float> x, std::span<const float> weights,
                  os::ThreadPool& pool) {
  WINNOW_CHECK(x.cols == size_ && (weights.empty() || weights.size() == x.rows));
  require_finite(x, weights);
  for (std::size_t first = 0; first < x.rows; first += kStretch) {
    const std::size_t count = std::min(kStretch, x.rows - first);
    add_stretch(x.rows_from(first, count),
                weights.empty() ? weights : weights.subspan(first, count), pool);
  }
  tokens_ += static_cast<double>(x.rows);
  if (weights.empty()) weight_ += static_cast<double>(x.rows);
  for (const float w : weights) weight_ += w;
}

void Hessian::add_stretch(tensor::MatrixView<const float> x, std::span<const float> weights,
                          os::ThreadPool& pool) {
  tensor::Matrix<float> weighted(x.rows, size_);
  for (std::size_t t = 0; t < x.rows; ++t) {
    const float w = weights.empty() ? 1.0F : weights[t];
    for (std::size_t j = 0; j < size_; ++j) weighted.row(t)[j] = w * x.row(t)[j];
  }
  const std::size_t tiles = (size_ + kTile - 1) / kTile;
  pool.run(tiles * (tiles + 1) / 2, [&](std::size_t item, unsigned) {
    std::size_t row = 0;
    while ((row + 1) * (row + 2) / 2 <= item) ++row;
    const std::size_t i0 = row * kTile;
    const std::size_t j0 = (item - row * (row + 1) / 2) * kTile;
    const std::size_t rows = std::min(kTile, size_ - i0);
    const std::size_t cols = std::min(kTile, size_ - j0);
    float buffer[kTile * kTile];
    const MutableMatrix products{buffer, rows, cols, kTile};
    transposed_product({x.data + i0, x.rows, rows, x.row_stride},
                       {weighted.flat().data() + j0, x.rows, cols, size_}, products);
    for (std::size_t i = 0; i < rows; ++i) {
      double* const out = values_.data() + packed(i0 + i, j0);
      const std::size_t count = std::min(cols, i0 + i + 1 - j0);
      for (std::size_t j = 0; j < count; ++j) out[j] += double{products.row(i)[j]};
    }
  });
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

Hessian Hessian::identity(std::size_t size) {
  Hessian result(size);
  for (std::size_t i = 0; i < size; ++i) result.values_[packed(i, i)] = 1.0;
  result.tokens_ = result.weight_ = 1.0;
  return result;
}

Hessian Hessian::of_reordered_inputs(std::span<const std::uint32_t> order) const {
  WINNOW_CHECK(order.size() == size_);
  Hessian result = *this;
  for (std::size_t i = 0; i < size_; ++i) {
    for (std::size_t j = 0; j <= i; ++j) result.values_[packed(i, j)] = at(order[i], order[j]);
  }
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

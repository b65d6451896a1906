// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/linear_algebra.h"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <Eigen/QR>
#include <Eigen/SVD>
#include <algorithm>
#include <type_traits>

#include "base/rng.h"

namespace winnow::compress {
namespace {

template <typename T>
using RowMajor = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Stride = Eigen::OuterStride<>;

Eigen::Index signed_size(std::size_t n) { return static_cast<Eigen::Index>(n); }

template <typename T>
auto map(tensor::MatrixView<const T> view) {
  return Eigen::Map<const RowMajor<T>, 0, Stride>(view.data, signed_size(view.rows),
                                                  signed_size(view.cols),
                                                  Stride(signed_size(view.row_stride)));
}

template <typename T>
requires(!std::is_const_v<T>) auto map(tensor::MatrixView<T> view) {
  return Eigen::Map<RowMajor<T>, 0, Stride>(view.data, signed_size(view.rows),
                                            signed_size(view.cols),
                                            Stride(signed_size(view.row_stride)));
}

/// The inverse of the lower triangle of `lower`, by panels of columns: above its panel's rows a
/// column of the inverse is zero, so each solve starts there (n^3 / 3 operations, not n^3).
Eigen::MatrixXd inverse_of_lower(const Eigen::MatrixXd& lower) {
  constexpr Eigen::Index kPanel = 128;
  const Eigen::Index n = lower.rows();
  Eigen::MatrixXd inverse = Eigen::MatrixXd::Identity(n, n);
  for (Eigen::Index first = 0; first < n; first += kPanel) {
    const Eigen::Index left = n - first;
    auto panel = inverse.block(first, first, left, std::min(kPanel, left));
    lower.block(first, first, left, left).triangularView<Eigen::Lower>().solveInPlace(panel);
  }
  return inverse;
}

/// An orthonormal basis of the columns.
Eigen::MatrixXd orthonormal(const Eigen::MatrixXd& columns) {
  const Eigen::HouseholderQR<Eigen::MatrixXd> qr(columns);
  return qr.householderQ() * Eigen::MatrixXd::Identity(columns.rows(), columns.cols());
}

}  // namespace

void product(const kernels::Kernels& kernels, ConstMatrix a, ConstMatrix b, MutableMatrix out) {
  kernels.multiply({a.data, a.row_stride, 1, b, out});
}

void subtract_transposed_product(const kernels::Kernels& kernels, ConstMatrix a, ConstMatrix b,
                                 MutableMatrix out) {
  kernels.multiply({a.data, 1, a.row_stride, b, out, -1.0F, /*add=*/true});
}

// Reversing rows and columns turns an upper factor into a lower one. With J h J = L L^T, h is V V^T
// for the upper V = J L J, so h^-1 = V^-T V^-1 and U = V^-1 = J L^-1 J.
std::optional<tensor::Matrix<float>> inverse_factor(tensor::MatrixView<const double> h) {
  const Eigen::Index n = signed_size(h.rows);
  Eigen::MatrixXd reversed(n, n);
  for (Eigen::Index j = 0; j < n; ++j) {
    for (Eigen::Index i = j; i < n; ++i) {
      reversed(i, j) = h.data[(n - 1 - j) * signed_size(h.row_stride) + (n - 1 - i)];
    }
  }
  const Eigen::LLT<Eigen::Ref<Eigen::MatrixXd>> factor(reversed);
  if (factor.info() != Eigen::Success) return std::nullopt;
  const Eigen::MatrixXd inverse = inverse_of_lower(reversed);
  tensor::Matrix<float> upper(h.rows, h.rows);
  for (Eigen::Index i = 0; i < n; ++i) {
    for (Eigen::Index j = i; j < n; ++j) {
      const double value = inverse(n - 1 - i, n - 1 - j);
      upper.row(static_cast<std::size_t>(i))[static_cast<std::size_t>(j)] =
          static_cast<float>(value);
    }
    if (!(inverse(n - 1 - i, n - 1 - i) > 0)) return std::nullopt;  // NaN too
  }
  return upper;
}

std::optional<std::vector<double>> solve_symmetric(tensor::MatrixView<const double> g,
                                                   const std::vector<double>& b) {
  const Eigen::LLT<RowMajor<double>> factor(map(g));
  if (factor.info() != Eigen::Success) return std::nullopt;
  std::vector<double> x(b);
  Eigen::Map<Eigen::VectorXd> solution(x.data(), signed_size(x.size()));
  factor.solveInPlace(solution);
  if (!solution.allFinite()) return std::nullopt;
  return x;
}

std::optional<tensor::Matrix<double>> solve_symmetric(tensor::MatrixView<const double> g,
                                                      tensor::MatrixView<const double> b) {
  const Eigen::LLT<RowMajor<double>> factor(map(g));
  if (factor.info() != Eigen::Success) return std::nullopt;
  tensor::Matrix<double> x(b.rows, b.cols);
  if (b.cols == 0) return x;
  map(x.view()) = factor.solve(map(b));
  if (!map(x.view()).allFinite()) return std::nullopt;
  return x;
}

std::optional<tensor::Matrix<double>> lower_factor(tensor::MatrixView<const double> h) {
  const Eigen::LLT<RowMajor<double>> factor(map(h));
  if (factor.info() != Eigen::Success) return std::nullopt;
  tensor::Matrix<double> lower(h.rows, h.rows);
  map(lower.view()) = factor.matrixL();
  return lower;
}

tensor::Matrix<double> solve_transposed(tensor::MatrixView<const double> lower,
                                        tensor::MatrixView<const double> b) {
  tensor::Matrix<double> x(b.rows, b.cols);
  map(x.view()) = map(lower).transpose().triangularView<Eigen::Upper>().solve(map(b));
  return x;
}

tensor::Matrix<double> wide_product(tensor::MatrixView<const double> a,
                                    tensor::MatrixView<const double> b) {
  tensor::Matrix<double> out(a.rows, b.cols);
  // Eigen refers to elements that an empty matrix has not.
  if (a.rows == 0 || a.cols == 0 || b.cols == 0) return out;
  map(out.view()).noalias() = map(a) * map(b);
  return out;
}

SingularValues singular_values(tensor::MatrixView<const double> a) {
  const Eigen::BDCSVD<Eigen::MatrixXd> svd(map(a), Eigen::ComputeThinU | Eigen::ComputeThinV);
  const std::size_t count = std::min(a.rows, a.cols);
  SingularValues result{
      tensor::Matrix<double>(a.rows, count), {}, tensor::Matrix<double>(a.cols, count)};
  map(result.left.view()) = svd.matrixU();
  map(result.right.view()) = svd.matrixV();
  result.values.assign(svd.singularValues().begin(), svd.singularValues().end());
  return result;
}

SingularValues leading_singular_values(tensor::MatrixView<const double> a, std::size_t count) {
  constexpr std::size_t kSpare = 8;   // directions that make up for a slow drawing near
  constexpr std::size_t kRounds = 8;  // rounding errors have flat spectra: few rounds are too few
  const std::size_t width = count + kSpare;
  if (4 * width >= std::min(a.rows, a.cols)) return singular_values(a);
  Rng rng(0);
  Eigen::MatrixXd right(signed_size(a.cols), signed_size(width));
  for (double& value : right.reshaped()) value = rng.normal();
  Eigen::MatrixXd left;
  for (std::size_t round = 0; round < kRounds; ++round) {
    left = orthonormal(map(a) * right);
    right = orthonormal(map(a).transpose() * left);
  }
  left = orthonormal(map(a) * right);
  const Eigen::MatrixXd small = map(a).transpose() * left;  // [n, width]
  const Eigen::BDCSVD<Eigen::MatrixXd> svd(small, Eigen::ComputeThinU | Eigen::ComputeThinV);
  SingularValues result{
      tensor::Matrix<double>(a.rows, width), {}, tensor::Matrix<double>(a.cols, width)};
  map(result.left.view()).noalias() = left * svd.matrixV();
  map(result.right.view()) = svd.matrixU();
  result.values.assign(svd.singularValues().begin(), svd.singularValues().end());
  return result;
}

}  // namespace winnow::compress

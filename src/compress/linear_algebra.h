// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The dense linear algebra of the Hessian quantiser, on plain row-major views. The only file of the
// project behind which Eigen works; every function runs on the calling thread.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "kernels/kernels.h"
#include "tensor/matrix.h"

namespace winnow::compress {

using ConstMatrix = tensor::MatrixView<const float>;
using MutableMatrix = tensor::MatrixView<float>;

/// out = a b. a: [m, k], b: [k, n], out: [m, n], which overlaps neither; f32.
void product(const kernels::Kernels& kernels, ConstMatrix a, ConstMatrix b, MutableMatrix out);
/// out -= a^T b. a: [k, m], b: [k, n].
void subtract_transposed_product(const kernels::Kernels& kernels, ConstMatrix a, ConstMatrix b,
                                 MutableMatrix out);

/// The upper triangular U with h^-1 = U^T U, in f32 from an f64 factorisation; zeros below the
/// diagonal, which is positive. h: [n, n], symmetric, row-major f64, only its lower triangle is
/// read. Nothing when h is not positive definite in f64. Cost: 2 n^3 / 3 operations, 2 n^2 doubles.
std::optional<tensor::Matrix<float>> inverse_factor(tensor::MatrixView<const double> h);

/// Solves g x = b for a symmetric positive definite g [p, p]; nothing when it is singular.
std::optional<std::vector<double>> solve_symmetric(tensor::MatrixView<const double> g,
                                                   const std::vector<double>& b);

/// The same for many right-hand sides. b, x: [p, k].
std::optional<tensor::Matrix<double>> solve_symmetric(tensor::MatrixView<const double> g,
                                                      tensor::MatrixView<const double> b);

/// The lower triangular L with h = L L^T, zeros above the diagonal; nothing when h is not positive
/// definite in f64. h: [n, n], symmetric, only its lower triangle is read.
std::optional<tensor::Matrix<double>> lower_factor(tensor::MatrixView<const double> h);

/// x of L^T x = b for the L of `lower_factor`. b, x: [n, k].
tensor::Matrix<double> solve_transposed(tensor::MatrixView<const double> lower,
                                        tensor::MatrixView<const double> b);

/// a b, in f64. a: [m, k], b: [k, n].
tensor::Matrix<double> wide_product(tensor::MatrixView<const double> a,
                                    tensor::MatrixView<const double> b);

/// a = left diag(values) right^T with orthonormal columns; k = min(m, n).
struct SingularValues {
  tensor::Matrix<double> left;   ///< [m, k]
  std::vector<double> values;    ///< [k], 0 or more, falling
  tensor::Matrix<double> right;  ///< [n, k]
};
/// a: [m, n], m, n > 0, finite. Cost: about 10 m n k operations.
SingularValues singular_values(tensor::MatrixView<const double> a);
/// The `count` largest of them or a few more. Of matrices much larger than that not the exact ones:
/// those of a projection onto a subspace that repeated products with a have drawn towards them
/// (Halko, Martinsson and Tropp, arXiv:0909.4061), from a fixed start. Cost: about 50 m n (count +
/// 8) operations at most.
SingularValues leading_singular_values(tensor::MatrixView<const double> a, std::size_t count);

}  // namespace winnow::compress

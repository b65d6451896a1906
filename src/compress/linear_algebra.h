// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The dense linear algebra of the Hessian quantiser, on plain row-major views. The only file of the
// project behind which Eigen works; every function runs on the calling thread.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "tensor/matrix.h"

namespace winnow::compress {

using ConstMatrix = tensor::MatrixView<const float>;
using MutableMatrix = tensor::MatrixView<float>;

/// out = a b. a: [m, k], b: [k, n], out: [m, n], which overlaps neither; f32.
void product(ConstMatrix a, ConstMatrix b, MutableMatrix out);
/// out = a^T b. a: [k, m], b: [k, n]; f32.
void transposed_product(ConstMatrix a, ConstMatrix b, MutableMatrix out);
/// out -= a^T b.
void subtract_transposed_product(ConstMatrix a, ConstMatrix b, MutableMatrix out);

/// The upper triangular U with h^-1 = U^T U, in f32 from an f64 factorisation; zeros below the
/// diagonal, which is positive. h: [n, n], symmetric, row-major f64, only its lower triangle is
/// read. Nothing when h is not positive definite in f64. Cost: 2 n^3 / 3 operations, 2 n^2 doubles.
std::optional<tensor::Matrix<float>> inverse_factor(tensor::MatrixView<const double> h);

/// Solves g x = b for a symmetric positive definite g [p, p]; nothing when it is singular.
std::optional<std::vector<double>> solve_symmetric(tensor::MatrixView<const double> g,
                                                   const std::vector<double>& b);

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Loops over columns that several statistics share: the sums of a column run over tokens in their
// order, so they may be vectorised and shared out by columns without changing a bit.
#pragma once

#include <cstddef>
#include <span>

namespace winnow::compress {

/// squares[j] += x[j]^2, gated[j] += weight^2 x[j]^2, products in f64.
void add_squares(std::span<const float> x, double weight, double* squares, double* gated);
/// sums[j] += x[j], gated[j] += weight^2 x[j].
void add_values(std::span<const float> x, double weight, double* sums, double* gated);
/// squares[j] += x[j]^2, magnitudes[j] += |x[j]|, largest[j] = max(largest[j], |x[j]|).
void add_magnitudes(std::span<const float> x, double* squares, double* magnitudes, float* largest);
/// sum_j a[j] b[j] in f64, in eight interleaved chains added in order.
double dot(std::span<const float> a, std::span<const float> b);
/// max_j |x[j]|; 0 of nothing.
float largest_magnitude(std::span<const float> x);
/// out[j] += scale * x[j].
void add_scaled(std::span<const double> x, double scale, double* out);

}  // namespace winnow::compress

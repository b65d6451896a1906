// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The fast orthonormal Walsh-Hadamard transform. It spreads what stands out in one channel over
// all, so that blocks with one scale lose less; it is its own inverse.
#pragma once

#include <cstddef>
#include <span>

#include "tensor/matrix.h"

namespace winnow::compress {

/// Width of the blocks that a vector of `size` is transformed in: the largest power of two that
/// divides it. size > 0.
std::size_t hadamard_block(std::size_t size);

/// x becomes H x in each block of hadamard_block(x.size()), with H_ij = (-1)^popcount(i & j) /
/// sqrt(block): symmetric, H H = I. Cost: size * log2(block) additions.
void hadamard(std::span<float> x);
void hadamard(std::span<double> x);

/// `hadamard` of each stretch of `size` elements of x.
template <typename T>
void hadamard_each(std::span<T> x, std::size_t size) {
  for (std::size_t first = 0; first < x.size(); first += size) hadamard(x.subspan(first, size));
}

/// Columns of each stretch of `size` rows: W becomes H W there.
void hadamard_rows(tensor::MatrixView<float> weights, std::size_t size);

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The search for points of a codebook as the codecs' own encoders do it.
#include "kernels/kernels.h"

namespace winnow::kernels::scalar {

void nearest_points(const quant::Codebook& book, const float* target, const float* weights,
                    float step, quant::SignParity parity, std::size_t count,
                    std::uint8_t* codes) noexcept {
  book.nearest(target, weights, step, parity, count, codes);
}

void choose_points(const quant::Codebook& book, const float* target, const float* weights,
                   float step, std::uint8_t* codes) noexcept {
  book.choose(target, weights, step, codes);
}

}  // namespace winnow::kernels::scalar

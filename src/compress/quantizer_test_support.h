// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// For tests of the Hessian quantiser: problems with correlated inputs, and losses by definition.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "base/rng.h"
#include "compress/coded_matrix.h"
#include "compress/damped_hessian.h"
#include "compress/linear_algebra.h"
#include "quant/codec.h"

namespace winnow::compress::testing {

inline tensor::Matrix<float> random_matrix(std::uint64_t seed, std::size_t rows, std::size_t cols,
                                           double sigma = 0.02) {
  Rng rng(seed);
  tensor::Matrix<float> matrix(rows, cols);
  for (float& v : matrix.flat()) v = static_cast<float>(sigma * rng.normal());
  return matrix;
}

/// Inputs whose neighbouring columns are correlated and whose energies differ by column.
inline Hessian correlated_hessian(std::uint64_t seed, std::size_t tokens, std::size_t size) {
  tensor::Matrix<float> x = random_matrix(seed, tokens, size, 1.0);
  Rng rng(99);  // the same columns for every seed: other text, same layer
  std::vector<float> scale(size);
  for (float& s : scale) s = static_cast<float>(std::exp(0.7 * rng.normal()));
  for (std::size_t t = 0; t < tokens; ++t) {
    const auto row = x.row(t);
    for (std::size_t j = 1; j < size; ++j) row[j] = 0.8F * row[j - 1] + 0.6F * row[j];
    for (std::size_t j = 0; j < size; ++j) row[j] *= scale[j];
  }
  os::ThreadPool pool(1);
  Hessian hessian(size);
  hessian.add(x.view(), {}, pool);
  return hessian;
}

/// H = 1.
inline Hessian identity_hessian(std::size_t size) {
  tensor::Matrix<float> x(size, size);
  for (std::size_t j = 0; j < size; ++j) x.row(j)[j] = 1.0F;
  os::ThreadPool pool(1);
  Hessian hessian(size);
  hessian.add(x.view(), {}, pool);
  return hessian;
}

/// tr(dW h dW^T) in f64.
inline double loss_by_definition(ConstMatrix weights, const CodedMatrix& coded, ConstMatrix h) {
  std::vector<float> decoded(weights.cols);
  double loss = 0;
  for (std::size_t r = 0; r < weights.rows; ++r) {
    coded.decode_row(r, decoded);
    for (std::size_t i = 0; i < weights.cols; ++i) {
      const double error = double{decoded[i]} - weights.row(r)[i];
      for (std::size_t j = 0; j < weights.cols; ++j) {
        loss += error * h.row(i)[j] * (double{decoded[j]} - weights.row(r)[j]);
      }
    }
  }
  return loss;
}

inline std::vector<std::byte> packed(const CodedMatrix& coded, const quant::Codec& codec) {
  const std::size_t row_bytes = coded.cols() / codec.block_size * codec.block_bytes;
  std::vector<std::byte> bytes(coded.rows() * row_bytes);
  for (std::size_t r = 0; r < coded.rows(); ++r) coded.pack_row(r, bytes.data() + r * row_bytes);
  return bytes;
}

inline std::vector<const quant::Codec*> codecs_with_grid() {
  std::vector<const quant::Codec*> codecs;
  for (const quant::Codec* codec : quant::all_codecs()) {
    if (codec->grid != nullptr) codecs.push_back(codec);
  }
  return codecs;
}

}  // namespace winnow::compress::testing

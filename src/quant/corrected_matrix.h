// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A packed matrix with what a model may add to it: two factors of low rank that give back a part of
// what quantising lost. Kernels know packed matrices only; who multiplies for a model adds the
// rest.
#pragma once

#include <cstddef>

#include "base/units.h"
#include "quant/codec.h"

namespace winnow::quant {

/// y = W x + left (right x). Everything is borrowed.
struct CorrectedMatrix : PackedMatrix {
  PackedMatrix left;   ///< [rows, rank] of a float codec; no codec where nothing is added
  PackedMatrix right;  ///< [rank, cols]

  CorrectedMatrix() = default;
  CorrectedMatrix(const Codec* packed_codec, const std::byte* bytes, std::size_t out_features,
                  std::size_t in_features)
      : PackedMatrix{packed_codec, bytes, out_features, in_features} {}

  bool corrected() const { return right.codec != nullptr; }
  std::size_t rank() const { return right.rows; }
};

}  // namespace winnow::quant

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Q4_0, Q5_0, Q4_1, Q5_1 and Q8_0 as llama.cpp makes them: 32 weights with one scale.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "quant/block_grid.h"
#include "quant/one_level.h"
#include "quant/stock/costs.h"

namespace winnow::quant::stock {

/// `row` is the mean square of the whole row.
template <int Edge>
struct SignedBlock {
  static constexpr std::size_t kBlock = kSmallBlock;

  static void encode(const float* x, const float* importance, float row, BlockParameters& out) {
    if (importance != nullptr) {
      float w[kBlock];
      weigh(x, importance, row, kBlock, w);
      out.scale = tensor::float_to_half(fit_signed({x, w, kBlock}, Edge, out.codes));
      return;
    }
    const float scale = extreme(x, kBlock) / -Edge;
    const float inverse = scale != 0 ? 1.0F / scale : 0.0F;
    out.scale = tensor::float_to_half(scale);
    for (std::size_t j = 0; j < kBlock; ++j) {
      const int code = truncated(x[j] * inverse + (Edge + 0.5F));
      out.codes[j] = static_cast<std::uint8_t>(std::min(2 * Edge - 1, code));
    }
  }
};

template <int Bits>
struct BaseBlock {
  static constexpr std::size_t kBlock = kSmallBlock;
  static constexpr int kTop = (1 << Bits) - 1;

  static void encode(const float* x, const float* importance, float row, BlockParameters& out) {
    if (importance != nullptr) {
      float w[kBlock];
      weigh(x, importance, row, kBlock, w);
      const auto fit = fit_with_minimum({x, w, kBlock}, kTop, kWeightedMinima, out.codes);
      store(fit.scale, -fit.minimum, out);
      return;
    }
    // The first of equals each, which decides the sign of zeros.
    const float low = *std::min_element(x, x + kBlock);
    const float scale = (*std::max_element(x, x + kBlock) - low) / kTop;
    const float inverse = scale != 0 ? 1.0F / scale : 0.0F;
    store(scale, low, out);
    for (std::size_t j = 0; j < kBlock; ++j) {
      const int code = truncated((x[j] - low) * inverse + 0.5F);
      out.codes[j] = static_cast<std::uint8_t>(std::min(kTop, code));
    }
  }

 private:
  static void store(float scale, float base, BlockParameters& out) {
    out.scale = tensor::float_to_half(scale);
    out.min_scale = negated_half(tensor::float_to_half(base));
  }
};

/// Importance changes nothing.
struct Q8Block {
  static constexpr std::size_t kBlock = kSmallBlock;

  static void encode(const float* x, const float* /*importance*/, float /*row*/,
                     BlockParameters& out) {
    const float scale = std::fabs(extreme(x, kBlock)) / 127;
    const float inverse = scale != 0 ? 1.0F / scale : 0.0F;
    out.scale = tensor::float_to_half(scale);
    for (std::size_t j = 0; j < kBlock; ++j) {
      const int code = truncated(std::round(x[j] * inverse));
      out.codes[j] = static_cast<std::uint8_t>(code + 127);
    }
  }
};

}  // namespace winnow::quant::stock

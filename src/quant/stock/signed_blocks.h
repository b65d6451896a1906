// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Q3_K and Q6_K as llama.cpp makes them: super-blocks with scales of either sign.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "quant/block_grid.h"
#include "quant/stock/costs.h"

namespace winnow::quant::stock {

inline constexpr std::size_t kSignedSub = 16;
inline constexpr std::size_t kSignedCount = kSuperBlock / kSignedSub;

/// The nearest codes with the scales as stored; sub-blocks without a scale keep theirs.
inline void code_signed_again(const float* x, const StoredScale& d, int edge,
                              BlockParameters& out) {
  out.scale = d.bits;
  for (std::size_t k = 0; k < kSignedCount; ++k) {
    const float scale = d.value * static_cast<float>(out.scales[k]);
    if (scale == 0) continue;
    for (std::size_t j = k * kSignedSub; j < (k + 1) * kSignedSub; ++j) {
      const int level = std::clamp(rounded(x[j] / scale), -edge, edge - 1);
      out.codes[j] = static_cast<std::uint8_t>(level + edge);
    }
  }
}

struct Q3Block {
  static constexpr std::size_t kBlock = kSuperBlock;
  static constexpr int kEdge = 4;
  static constexpr int kIntegerEdge = 32;

  static void encode(const float* x, const float* importance, float /*row*/, BlockParameters& out) {
    const float spread = 2 * sum_of_squares(x, kBlock) / static_cast<float>(kBlock);
    float scales[kSignedCount];
    float costs[kSignedCount];
    for (std::size_t k = 0; k < kSignedCount; ++k) {
      const std::size_t at = k * kSignedSub;
      float w[kSignedSub];
      const Run run{x + at, w, kSignedSub};
      if (importance == nullptr) {
        square(x + at, kSignedSub, w);
        scales[k] = refine_signed(run, kEdge, out.codes + at);
        continue;
      }
      weigh(x + at, importance + at, spread, kSignedSub, w);
      costs[k] = sum(w, kSignedSub);
      scales[k] = fit_signed(run, kEdge, out.codes + at);
    }
    const float d = importance == nullptr ? proportional(scales, out.scales)
                                          : fitted({scales, costs, kSignedCount}, out.scales);
    code_signed_again(x, StoredScale(d), kEdge, out);
  }

 private:
  static float proportional(const float* scales, std::int8_t* integers) {
    const float peak = extreme(scales, kSignedCount);
    if (peak == 0) {
      std::fill_n(integers, kSignedCount, static_cast<std::int8_t>(-kIntegerEdge));
      return 0;
    }
    const float inverse = static_cast<float>(-kIntegerEdge) / peak;
    for (std::size_t k = 0; k < kSignedCount; ++k) {
      const auto nearest = static_cast<std::int8_t>(rounded(inverse * scales[k]));
      integers[k] =
          static_cast<std::int8_t>(std::clamp<int>(nearest, -kIntegerEdge, kIntegerEdge - 1));
    }
    return 1 / inverse;
  }
  static float fitted(const Run& scales, std::int8_t* integers) {
    std::uint8_t codes[kSignedCount];
    const float d = fit_signed(scales, kIntegerEdge, codes);
    for (std::size_t k = 0; k < kSignedCount; ++k) {
      integers[k] = static_cast<std::int8_t>(codes[k] - kIntegerEdge);
    }
    return d;
  }
};

struct Q6Block {
  static constexpr std::size_t kBlock = kSuperBlock;
  static constexpr int kEdge = 32;

  /// Importance alone weighs errors here; without it, their squares do.
  static void encode(const float* x, const float* importance, float /*row*/, BlockParameters& out) {
    float scales[kSignedCount];
    for (std::size_t k = 0; k < kSignedCount; ++k) {
      const std::size_t at = k * kSignedSub;
      float squares[kSignedSub];
      square(x + at, kSignedSub, squares);
      const float* w = importance == nullptr ? squares : importance + at;
      scales[k] = fit_signed({x + at, w, kSignedSub}, kEdge, out.codes + at);
    }
    const float peak = extreme(scales, kSignedCount);
    if (std::fabs(peak) < kNothing) {
      out = {};
      return;
    }
    const float inverse = -128.0F / peak;
    for (std::size_t k = 0; k < kSignedCount; ++k) {
      out.scales[k] = static_cast<std::int8_t>(std::min(127, rounded(inverse * scales[k])));
    }
    code_signed_again(x, StoredScale(1 / inverse), kEdge, out);
  }
};

}  // namespace winnow::quant::stock

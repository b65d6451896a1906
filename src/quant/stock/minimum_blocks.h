// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Q2_K, Q4_K and Q5_K as llama.cpp makes them: super-blocks with scales and minima.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "quant/block_grid.h"
#include "quant/stock/costs.h"

namespace winnow::quant::stock {

// A shape says what tells one of these types from another. Its `settle` gives the integers that the
// bytes will hold: a negative scale (only rounding makes one, of weights of very different sizes)
// wraps around to a large integer, whose upper bits spill into the fields beside it.

struct Q2Shape {
  static constexpr std::size_t kSub = 16;
  static constexpr int kTop = 3;
  static constexpr int kIntegerTop = 15;
  static constexpr float kSpread = 1;
  static constexpr MinimumGrid kPlain = {-0.5F, 0.1F, 15, /*absolute=*/true};

  static void weigh_plain(const float* x, float* w) {
    for (std::size_t j = 0; j < kSub; ++j) w[j] = std::fabs(x[j]);
  }
  static void settle(std::uint8_t* scales, std::uint8_t* minima) {
    for (std::size_t k = 0; k < kSuperBlock / kSub; ++k) {
      const auto both = static_cast<unsigned>(scales[k] | (minima[k] << 4));
      scales[k] = both & 15U;
      minima[k] = (both >> 4) & 15U;
    }
  }
};

template <int Bits>
struct MinShape {
  static constexpr std::size_t kSub = 32;
  static constexpr int kTop = (1 << Bits) - 1;
  static constexpr int kIntegerTop = 63;
  static constexpr float kSpread = 2;
  static constexpr MinimumGrid kPlain =
      Bits == 4 ? MinimumGrid{-1.0F, 0.1F, 20, false} : MinimumGrid{-0.5F, 0.1F, 15, false};

  static void weigh_plain(const float* x, float* w) {
    const float root = std::sqrt(mean_square(x, kSub));
    for (std::size_t j = 0; j < kSub; ++j) w[j] = root + std::fabs(x[j]);
  }
  static void settle(std::uint8_t* scales, std::uint8_t* minima) {
    for (std::uint8_t* integers : {scales, minima}) {
      for (std::size_t k = 0; k < 4; ++k) {
        std::uint8_t& early = integers[k];
        std::uint8_t& late = integers[k + 4];
        if (Bits == 5) {
          early = std::min<std::uint8_t>(early, 63);
          late = std::min<std::uint8_t>(late, 63);
        }
        // The upper bits of the late one are beside the early one.
        late = static_cast<std::uint8_t>((late & 63U) | ((early & 0xc0U) >> 2));
        early &= 63U;
      }
    }
  }
};

/// What the search leaves of each sub-block.
template <std::size_t Count>
struct SubBlocks {
  float scales[Count] = {};
  float minima[Count] = {};
  float costs[Count] = {};  ///< sums of w
};

/// Integers in proportion, the largest value getting `top`; returns the scale of the integers.
template <std::size_t Count>
float proportional_integers(const float (&values)[Count], int top, std::uint8_t* integers) {
  const float largest = std::max(0.0F, *std::max_element(values, values + Count));
  const float inverse = largest > 0 ? static_cast<float>(top) / largest : 0.0F;
  for (std::size_t k = 0; k < Count; ++k) {
    integers[k] = static_cast<std::uint8_t>(rounded(inverse * values[k]));
    if (top == 63 && integers[k] > 63) integers[k] = 63;  // Q2_K has no such check
  }
  return largest / static_cast<float>(top);
}

template <class Shape>
struct MinimumBlock {
  static constexpr std::size_t kBlock = kSuperBlock;
  static constexpr std::size_t kCount = kBlock / Shape::kSub;

  static void encode(const float* x, const float* importance, float /*row*/, BlockParameters& out) {
    const SubBlocks<kCount> subs = search(x, importance, out.codes);
    std::uint8_t scales[kCount];
    std::uint8_t minima[kCount];
    float d = 0;
    float dmin = 0;
    if (importance == nullptr) {
      d = proportional_integers(subs.scales, Shape::kIntegerTop, scales);
      dmin = proportional_integers(subs.minima, Shape::kIntegerTop, minima);
    } else {
      d = fit_integers({subs.scales, subs.costs, kCount}, Shape::kIntegerTop, scales);
      dmin = fit_integers({subs.minima, subs.costs, kCount}, Shape::kIntegerTop, minima);
    }
    Shape::settle(scales, minima);
    std::copy_n(scales, kCount, out.scales);
    std::copy_n(minima, kCount, out.mins);
    code_again(x, StoredScale(d), StoredScale(dmin), out);
  }

 private:
  static SubBlocks<kCount> search(const float* x, const float* importance, std::uint8_t* codes) {
    SubBlocks<kCount> subs;
    const float spread = Shape::kSpread * sum_of_squares(x, kBlock) / static_cast<float>(kBlock);
    float w[Shape::kSub];
    for (std::size_t k = 0; k < kCount; ++k) {
      const std::size_t at = k * Shape::kSub;
      if (importance == nullptr) {
        Shape::weigh_plain(x + at, w);
      } else {
        weigh(x + at, importance + at, spread, Shape::kSub, w);
      }
      const auto& grid = importance == nullptr ? Shape::kPlain : kWeightedMinima;
      const ScaleAndMinimum fit =
          fit_with_minimum({x + at, w, Shape::kSub}, Shape::kTop, grid, codes + at);
      subs.scales[k] = fit.scale;
      subs.minima[k] = fit.minimum;
      subs.costs[k] = sum(w, Shape::kSub);
    }
    return subs;
  }

  /// The nearest codes with the scales as stored; sub-blocks without a scale keep theirs.
  static void code_again(const float* x, const StoredScale& d, const StoredScale& dmin,
                         BlockParameters& out) {
    out.scale = d.bits;
    out.min_scale = dmin.bits;
    for (std::size_t k = 0; k < kCount; ++k) {
      const float scale = d.value * static_cast<float>(out.scales[k]);
      if (scale == 0) continue;
      const float minimum = dmin.value * static_cast<float>(out.mins[k]);
      for (std::size_t j = k * Shape::kSub; j < (k + 1) * Shape::kSub; ++j) {
        const int level = std::clamp(rounded((x[j] + minimum) / scale), 0, Shape::kTop);
        out.codes[j] = static_cast<std::uint8_t>(level);
      }
    }
  }
};

}  // namespace winnow::quant::stock

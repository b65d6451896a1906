// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Parts of the encoders' search for scales: what one candidate scale costs on a run of weights, and
// the best real-valued scale (and offset) of a run. All minimise sum_j importance_j * (w_j -
// w'_j)^2.
//
// The search alternates two exact steps: with the scale fixed, the nearest code of each weight is
// best; with the codes fixed, the best scale is a (weighted) least-squares solution. A grid of
// starting points, one per lane, keeps it out of poor local minima.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "quant/lanes.h"
#include "quant/levels.h"

namespace winnow::quant {

/// A block of weights made safe to square and sum in f32.
struct BlockUnits {
  /// Power of two by which the weights were divided: the largest |x| is in [1, 2).
  /// 0: the whole block is below half the smallest f16 scale and encodes as zeros.
  float unit = 0;

  /// Nearest f16 scale, in true units, of a scale in block units. Never infinite: a scale above the
  /// f16 range is clamped, and the weights then clip.
  std::uint16_t to_half(float scale) const;
  /// The scale that the f16 stands for, in block units.
  float from_half(std::uint16_t bits) const;
  /// to_half and back.
  float rounded(float scale) const { return from_half(to_half(scale)); }
};

/// Fills x[count] with weights / unit and w[count] with the importance relative to the largest of
/// the block (all ones when `importance` is null or all zero). A floor of 1e-7 keeps every sum of w
/// positive; it changes the objective by less than its f32 rounding.
BlockUnits normalize(const float* weights, const float* importance, std::size_t count, float* x,
                     float* w);

/// Largest magnitude of x[count].
float largest_magnitude(const float* x, std::size_t count);

/// Writes the stored code of each x (count a multiple of 4) for w = scale * level + base.
template <class Levels>
void store_codes(const float* x, std::size_t count, float scale, float base, std::uint8_t* codes) {
  const Levels levels;
  const Lanes inverse = inverse_or_zero(splat(scale));
  for (std::size_t j = 0; j < count; j += kLanes) {
    const Lanes four = {x[j], x[j + 1], x[j + 2], x[j + 3]};
    const Lanes level = levels.nearest((four - base) * inverse);
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      codes[j + lane] = Levels::stored(level[lane]);
    }
  }
}

// ---- w = scale * level ----

/// Sums over a run, per lane, for the residual e = x - scale * level.
struct SymmetricSums {
  Lanes error{};     ///< sum w e^2
  Lanes residual{};  ///< sum w e level
  Lanes energy{};    ///< sum w level^2

  /// The least-squares scale for these codes is `scale + step()`.
  Lanes step() const { return energy > 0.0F ? residual / energy : splat(0.0F); }
  /// The error at that scale.
  Lanes refitted_error() const { return error - step() * residual; }
};

/// Codes each x with the level nearest to x / scale, for four scales.
template <class Levels>
SymmetricSums symmetric_sums(const float* x, const float* w, std::size_t count, Lanes scale) {
  const Lanes inverse = inverse_or_zero(scale);
  const Levels levels;
  SymmetricSums sums;
  for (std::size_t j = 0; j < count; ++j) {
    const Lanes level = levels.nearest(x[j] * inverse);
    const Lanes e = x[j] - scale * level;
    const Lanes we = w[j] * e;
    sums.error += we * e;
    sums.residual += we * level;
    sums.energy += w[j] * level * level;
  }
  return sums;
}

/// Real-valued scales, one per lane, and the error each leaves.
struct SymmetricFit {
  Lanes scale = splat(0.0F);
  Lanes error = splat(std::numeric_limits<float>::infinity());
};

/// Four scales with small error: each lane takes the best of its starting points, then improves it
/// by alternation. `largest` > 0 is the largest magnitude of the run, `sign` (+1 or -1) that of the
/// scales: the code ranges are lopsided, so both are worth a try.
template <class Levels>
SymmetricFit fit_symmetric(const float* x, const float* w, std::size_t count, float largest,
                           float sign) {
  // From levels left unused to levels clipped. Measured on Gaussian, heavy-tailed and real weights:
  // with few levels the best scale lies between -1.5 and +2.5; with many, the error is a rough
  // function of the scale and a wider range holds more chances (Q8_0: 0.82 of the error
  // at 1.5, 2.5).
  constexpr float kMargin = Levels::kEdge > 16 && Levels::kStep == 1 ? Levels::kEdge / 20 : 0.0F;
  constexpr float kUnused = 1.5F + kMargin;
  constexpr float kClipped = 2.5F + kMargin;
  constexpr std::size_t kTrials = kMargin > 0 ? 64 : 32;
  constexpr float kTrialStep = (kUnused + kClipped) * Levels::kStep / (kTrials - 1);
  constexpr int kRefinements = 2;

  SymmetricFit best;
  const auto consider = [&](Lanes scale) {
    const SymmetricSums sums = symmetric_sums<Levels>(x, w, count, scale);
    const Lanes error = sums.refitted_error();
    best.scale = error < best.error ? scale + sums.step() : best.scale;
    best.error = error < best.error ? error : best.error;
  };
  for (std::size_t i = 0; i < kTrials; i += kLanes) {
    const float first =
        Levels::kEdge - kUnused * Levels::kStep + static_cast<float>(i) * kTrialStep;
    consider(splat(sign * largest) / ramp(first, kTrialStep));
  }
  for (int i = 0; i < kRefinements; ++i) consider(best.scale);
  return best;
}

// ---- w = scale * level + base ----

/// Sums over a run, per lane, for the residual e = x - (scale * level + base).
struct AffineSums {
  Lanes error{};           ///< sum w e^2
  Lanes residual{};        ///< sum w e
  Lanes level_residual{};  ///< sum w e level
  Lanes level{};           ///< sum w level
  Lanes energy{};          ///< sum w level^2
};

template <class Levels>
AffineSums affine_sums(const float* x, const float* w, std::size_t count, Lanes scale, Lanes base) {
  const Lanes inverse = inverse_or_zero(scale);
  const Levels levels;
  AffineSums sums;
  for (std::size_t j = 0; j < count; ++j) {
    const Lanes level = levels.nearest((x[j] - base) * inverse);
    const Lanes e = x[j] - (scale * level + base);
    const Lanes we = w[j] * e;
    const Lanes wl = w[j] * level;
    sums.error += we * e;
    sums.residual += we;
    sums.level_residual += we * level;
    sums.level += wl;
    sums.energy += wl * level;
  }
  return sums;
}

/// Real-valued scale and base per lane, with the error at their least-squares values.
struct AffineFit {
  Lanes scale = splat(0.0F);
  Lanes base = splat(0.0F);
  Lanes error = splat(std::numeric_limits<float>::infinity());
};

/// Which bases a layout can store.
enum class BaseRange { kAny, kNegativeOrZero };

/// The least-squares scale and base for the codes of `sums`, base within `range`.
/// `total_weight` is sum w.
AffineFit refit_affine(const AffineSums& sums, float total_weight, Lanes scale, Lanes base,
                       BaseRange range);

/// Four fits with small error, from a grid of low and high ends, then alternation.
template <class Levels>
AffineFit fit_affine(const float* x, const float* w, std::size_t count, BaseRange range) {
  float low = x[0];
  float high = x[0];
  float total_weight = 0;
  for (std::size_t j = 0; j < count; ++j) {
    low = x[j] < low ? x[j] : low;
    high = x[j] > high ? x[j] : high;
    total_weight += w[j];
  }
  if (range == BaseRange::kNegativeOrZero && low > 0) low = 0;

  // Both ends move inwards (clipping) or outwards, in steps of the plain min-max scale.
  constexpr float kFirst = -0.6F;
  constexpr float kStep = 0.2F;
  constexpr std::size_t kMoves = 12;
  constexpr int kRefinements = 4;
  AffineFit best;
  const auto consider = [&](Lanes scale, Lanes base) {
    const AffineSums sums = affine_sums<Levels>(x, w, count, scale, base);
    const AffineFit fit = refit_affine(sums, total_weight, scale, base, range);
    best.scale = fit.error < best.error ? fit.scale : best.scale;
    best.base = fit.error < best.error ? fit.base : best.base;
    best.error = fit.error < best.error ? fit.error : best.error;
  };
  const float plain = (high - low) / Levels::kEdge;
  for (std::size_t i = 0; i < kMoves; ++i) {
    const float bottom = low + plain * (kFirst + kStep * static_cast<float>(i));
    const float base = range == BaseRange::kNegativeOrZero && bottom > 0 ? 0 : bottom;
    for (std::size_t k = 0; k < kMoves; k += kLanes) {
      const Lanes top = high - plain * ramp(kFirst + kStep * static_cast<float>(k), kStep);
      consider((top - base) / Levels::kEdge, splat(base));
    }
  }
  for (int i = 0; i < kRefinements; ++i) consider(best.scale, best.base);
  return best;
}

}  // namespace winnow::quant

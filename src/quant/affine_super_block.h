// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Encoder of super-blocks whose sub-blocks have an integer scale and an integer minimum (Q2_K,
// Q4_K, Q5_K); the method is told in super_block.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "quant/super_block.h"

namespace winnow::quant {

/// Layout gives Levels (0..n), kSubSize, and kScaleHigh: integer scales and minima are 0..that.
template <class Layout>
class AffineSuperBlockSearch {
 public:
  explicit AffineSuperBlockSearch(const SuperBlockInput& input) : in_(input) {}

  BlockParameters run() {
    float scale = 0;
    float base = 0;
    for (std::size_t k = 0; k < kCount; ++k) {
      fit_sub_block(k);
      scale = std::max(scale, target_[k].scale);
      base = std::min(base, target_[k].base);
    }
    for (const float stretch : kStretches) {
      for (const float min_stretch : kStretches) {
        improve({in_.units.rounded(scale / (Layout::kScaleHigh * stretch)),
                 in_.units.rounded(-base / (Layout::kScaleHigh * min_stretch))});
      }
    }
    return block();
  }

  double error() const { return best_.error; }

 private:
  using Levels = typename Layout::Levels;
  static constexpr std::size_t kSize = Layout::kSubSize;
  static constexpr std::size_t kCount = kSuperBlock / kSize;
  static constexpr int kRounds = 3;
  static constexpr float kStretches[] = {1.0F, 0.93F};

  struct Shared {
    float scale = 0;
    float min_scale = 0;
    bool operator==(const Shared&) const = default;
  };
  struct Target {
    float scale = 0;
    float base = 0;
    float mean_level = 0;
    float weight = 0;  ///< sum w
    float sum = 0;     ///< sum w x
  };
  struct Choice {
    Shared shared;
    float scales[kCount] = {};
    float mins[kCount] = {};
    double error = HUGE_VAL;
  };
  /// Normal equations of x = scale * a - min_scale * m, a = scales * level, m = mins.
  struct Normal {
    double aa = 0, am = 0, mm = 0, xa = 0, xm = 0;
  };

  void fit_sub_block(std::size_t k) {
    const float* x = in_.x + k * kSize;
    const float* w = in_.w + k * kSize;
    const AffineFit fit = fit_affine<Levels>(x, w, kSize, BaseRange::kNegativeOrZero);
    const std::size_t lane = smallest_lane(fit.error);
    Target& target = target_[k];
    target.scale = fit.scale[lane];
    target.base = fit.base[lane];
    for (std::size_t j = 0; j < kSize; ++j) {
      target.weight += w[j];
      target.sum += w[j] * x[j];
    }
    const AffineSums sums =
        affine_sums<Levels>(x, w, kSize, splat(target.scale), splat(target.base));
    target.mean_level = sums.level[0] / target.weight;
  }

  void improve(Shared shared) {
    for (int round = 0; round < kRounds; ++round) {
      Normal normal;
      Choice choice{.shared = shared, .scales = {}, .mins = {}, .error = 0};
      for (std::size_t k = 0; k < kCount; ++k) choose(k, choice, normal);
      if (choice.error < best_.error) best_ = choice;
      const Shared refitted = refit(normal, shared);
      if (refitted == shared) return;
      shared = refitted;
    }
  }

  /// The best of four integer scales with two minima each. A larger scale turns the line
  /// about the mean level, so each scale has its own minimum.
  void choose(std::size_t k, Choice& choice, Normal& normal) const {
    const Target& target = target_[k];
    const float scale = choice.shared.scale;
    const float min_scale = choice.shared.min_scale;
    const float inverse = inverse_or_zero(splat(scale))[0];
    const float min_inverse = inverse_or_zero(splat(min_scale))[0];
    const Lanes scales =
        clamp(ramp(std::floor(target.scale * inverse) - 1.0F, 1.0F), 0.0F, Layout::kScaleHigh);
    const Lanes base = target.base + (target.scale - scale * scales) * target.mean_level;
    const Lanes nearest = round_to_even(clamp(-base * min_inverse, 0.0F, Layout::kScaleHigh));
    const Lanes lower = clamp(-base * min_inverse - nearest < 0.0F ? nearest - 1.0F : nearest, 0.0F,
                              Layout::kScaleHigh);
    float best_error = std::numeric_limits<float>::infinity();
    Normal best;
    for (const float above : {0.0F, 1.0F}) {
      const Lanes mins = clamp(lower + above, 0.0F, Layout::kScaleHigh);
      const AffineSums sums = affine_sums<Levels>(in_.x + k * kSize, in_.w + k * kSize, kSize,
                                                  scale * scales, -(min_scale * mins));
      const std::size_t lane = smallest_lane(sums.error);
      if (sums.error[lane] >= best_error) continue;
      best_error = sums.error[lane];
      const double a = choice.scales[k] = scales[lane];
      const double m = choice.mins[k] = mins[lane];
      const double x_level = sums.level_residual[lane] + scale * a * sums.energy[lane] -
                             min_scale * m * sums.level[lane];
      best = {.aa = a * a * sums.energy[lane],
              .am = a * m * sums.level[lane],
              .mm = m * m * target.weight,
              .xa = a * x_level,
              .xm = m * target.sum};
    }
    choice.error += best_error;
    normal.aa += best.aa;
    normal.am += best.am;
    normal.mm += best.mm;
    normal.xa += best.xa;
    normal.xm += best.xm;
  }

  Shared refit(const Normal& n, const Shared& before) const {
    const double determinant = n.aa * n.mm - n.am * n.am;
    Shared after = before;
    if (determinant > 1e-9 * n.aa * n.mm) {
      after.scale = static_cast<float>((n.xa * n.mm - n.xm * n.am) / determinant);
      after.min_scale = static_cast<float>((n.am * n.xa - n.aa * n.xm) / determinant);
    } else if (n.aa > 0) {
      after.scale = static_cast<float>((n.xa + before.min_scale * n.am) / n.aa);
    }
    return {in_.units.rounded(after.scale), in_.units.rounded(after.min_scale)};
  }

  BlockParameters block() const {
    BlockParameters block;
    block.scale = in_.units.to_half(best_.shared.scale);
    block.min_scale = in_.units.to_half(best_.shared.min_scale);
    for (std::size_t k = 0; k < kCount; ++k) {
      block.scales[k] = static_cast<std::int8_t>(best_.scales[k]);
      block.mins[k] = static_cast<std::int8_t>(best_.mins[k]);
      store_codes<Levels>(in_.x + k * kSize, kSize, best_.shared.scale * best_.scales[k],
                          -(best_.shared.min_scale * best_.mins[k]), block.codes + k * kSize);
    }
    return block;
  }

  const SuperBlockInput& in_;
  Target target_[kCount];
  Choice best_;
};

/// Minima lie at or below zero; a sub-block wholly above zero is
/// better served by the mirror image (negative shared scales), so then both are tried.
template <class Layout>
BlockParameters search_both_signs(SuperBlockInput& input) {
  AffineSuperBlockSearch<Layout> search(input);
  const BlockParameters plain = search.run();
  bool above_zero = false;
  for (std::size_t k = 0; k < kSuperBlock; k += Layout::kSubSize) {
    above_zero |= *std::min_element(input.x + k, input.x + k + Layout::kSubSize) > 0;
  }
  if (!above_zero) return plain;
  for (float& x : input.x) x = -x;
  AffineSuperBlockSearch<Layout> mirrored_search(input);
  BlockParameters mirrored = mirrored_search.run();
  if (search.error() <= mirrored_search.error()) return plain;
  constexpr std::uint16_t kSignBit = 0x8000;
  mirrored.scale ^= kSignBit;
  mirrored.min_scale ^= kSignBit;
  return mirrored;
}

/// Layout as above.
template <class Layout>
BlockParameters search_affine_super_block(const float* weights, const float* importance) {
  SuperBlockInput input(weights, importance);
  if (input.units.unit == 0) return {};
  return search_both_signs<Layout>(input);
}

}  // namespace winnow::quant

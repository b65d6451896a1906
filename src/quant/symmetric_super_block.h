// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Encoder of super-blocks whose sub-blocks have a signed integer scale and no minimum (Q3_K, Q6_K,
// IQ4_XS); the method is told in super_block.h.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "quant/super_block.h"

namespace winnow::quant {

/// Layout gives Levels, kSubSize, and kScaleLow (< 0) .. kScaleHigh, the integer scales.
template <class Layout>
class SymmetricSuperBlockSearch {
 public:
  explicit SymmetricSuperBlockSearch(const SuperBlockInput& input) : in_(input) {}

  BlockParameters run() {
    float extreme = 0;  // the real-valued scale of largest magnitude
    for (std::size_t k = 0; k < kCount; ++k) fit_sub_block(k, extreme);
    for (const float stretch : kStretches) {
      improve(in_.units.rounded(extreme / (Layout::kScaleLow * stretch)));
    }
    BlockParameters block;
    block.scale = in_.units.to_half(best_.scale);
    for (std::size_t k = 0; k < kCount; ++k) {
      block.scales[k] = static_cast<std::int8_t>(best_.scales[k]);
      store_codes<Levels>(in_.x + k * kSize, kSize, best_.scale * best_.scales[k], 0.0F,
                          block.codes + k * kSize);
    }
    return block;
  }

 private:
  using Levels = typename Layout::Levels;
  static constexpr std::size_t kSize = Layout::kSubSize;
  static constexpr std::size_t kCount = kSuperBlock / kSize;
  static constexpr int kRounds = 3;
  /// Shared scales to start from, relative to the one at which the extreme scale just fits.
  static constexpr float kStretches[] = {1.0F, 0.95F, 0.9F};

  struct Choice {
    float scale = 0;
    float scales[kCount] = {};
    double error = HUGE_VAL;
  };

  void fit_sub_block(std::size_t k, float& extreme) {
    const float* x = in_.x + k * kSize;
    const float* w = in_.w + k * kSize;
    const float largest = largest_magnitude(x, kSize);
    if (largest == 0) return;
    float best_error = std::numeric_limits<float>::infinity();
    float best_scale = 0;
    for (int side = 0; side < 2; ++side) {
      const SymmetricFit fit =
          fit_symmetric<Levels>(x, w, kSize, largest, side == 0 ? -1.0F : 1.0F);
      const std::size_t lane = smallest_lane(fit.error);
      target_[side][k] = fit.scale[lane];
      if (fit.error[lane] < best_error) {
        best_error = fit.error[lane];
        best_scale = fit.scale[lane];
      }
    }
    if (std::fabs(best_scale) > std::fabs(extreme)) extreme = best_scale;
  }

  /// Alternates integer scales and the shared scale, beginning with `scale`.
  void improve(float scale) {
    for (int round = 0; round < kRounds; ++round) {
      double correlation = 0;  // sum w x scales level
      double energy = 0;       // sum w (scales level)^2
      Choice choice{.scale = scale, .scales = {}, .error = 0};
      for (std::size_t k = 0; k < kCount; ++k) choose(k, choice, correlation, energy);
      if (choice.error < best_.error) best_ = choice;
      const float refitted =
          energy > 0 ? in_.units.rounded(static_cast<float>(correlation / energy)) : 0.0F;
      if (refitted == scale) return;
      scale = refitted;
    }
  }

  /// The best integer scale of sub-block k among the four around the target of each sign.
  void choose(std::size_t k, Choice& choice, double& correlation, double& energy) const {
    const float inverse = inverse_or_zero(splat(choice.scale))[0];
    float best_error = std::numeric_limits<float>::infinity();
    double best_correlation = 0;
    double best_energy = 0;
    for (const auto& target : target_) {
      const float first = std::floor(target[k] * inverse) - 1.0F;
      const Lanes scales = clamp(ramp(first, 1.0F), Layout::kScaleLow, Layout::kScaleHigh);
      const SymmetricSums sums = symmetric_sums<Levels>(in_.x + k * kSize, in_.w + k * kSize, kSize,
                                                        choice.scale * scales);
      const std::size_t lane = smallest_lane(sums.error);
      if (sums.error[lane] >= best_error) continue;
      best_error = sums.error[lane];
      const float integer = scales[lane];
      choice.scales[k] = integer;
      best_correlation =
          integer * (sums.residual[lane] + choice.scale * integer * sums.energy[lane]);
      best_energy = integer * integer * sums.energy[lane];
    }
    choice.error += best_error;
    correlation += best_correlation;
    energy += best_energy;
  }

  const SuperBlockInput& in_;
  float target_[2][kCount] = {};
  Choice best_;
};

/// Layout as above.
template <class Layout>
BlockParameters search_symmetric_super_block(const float* weights, const float* importance) {
  const SuperBlockInput input(weights, importance);
  if (input.units.unit == 0) return {};
  return SymmetricSuperBlockSearch<Layout>(input).run();
}

}  // namespace winnow::quant

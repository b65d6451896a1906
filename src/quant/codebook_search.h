// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Encoder of the super-blocks whose groups of weights are points of a codebook (IQ2 and IQ3): one
// f16 scale, sub-blocks of 16 or 32 with an odd integer scale of 1..31, w = unit * scale * integer
// * sign * magnitude.
//
// Signs first: those of the weights, and where a layout wants an even number of minus signs in 8
// weights, the one that costs least is turned. Then, as in super_block.h: every sub-block gets its
// best real-valued scale, first with each weight by itself, then with points; the shared scale is
// searched with the codes fixed; the best few are tried with the codes chosen anew, and refitted.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "quant/point_search.h"
#include "quant/search.h"
#include "quant/super_block.h"

namespace winnow::quant {

/// Layout gives Book, kSubSize, kEvenSigns, kUnit (a power of two) and kUsual: the usual ratio of
/// the root mean square of a sub-block to its best scale.
template <class Layout>
class CodebookSearch {
 public:
  explicit CodebookSearch(const SuperBlockInput& input) : in_(input) {}

  BlockParameters run() {
    for (std::size_t j = 0; j < kSuperBlock; j += kSignGroup) choose_signs(j);
    for (std::size_t k = 0; k < kCount; ++k) fit_sub_block(k);
    for (const float step : shared_steps()) improve(step);
    return finish();
  }

 private:
  using Book = typename Layout::Book;
  using Search = PointSearch<Book>;
  static constexpr std::size_t kSize = Layout::kSubSize;
  static constexpr std::size_t kCount = kSuperBlock / kSize;
  static constexpr std::size_t kGroup = Book::kGroup;
  static constexpr int kLargestInteger = 31;
  static constexpr std::size_t kSharedTrials = 2;
  static constexpr int kRounds = 2;
  static constexpr std::size_t kReach = 8;

  struct Choice {
    float step = 0;  ///< of the integers: unit * shared scale
    int integers[kCount] = {};
    double error = HUGE_VAL;
  };

  /// Magnitudes into x_; one is negative where the signs would be odd. Good enough to find scales;
  /// `finish` tries more.
  void choose_signs(std::size_t first) {
    std::size_t cheapest = first;
    float lowest = std::numeric_limits<float>::infinity();
    bool odd = false;
    for (std::size_t j = first; j < first + kSignGroup; ++j) {
      const bool negative = std::signbit(in_.x[j]);
      x_[j] = std::fabs(in_.x[j]);
      odd ^= negative;
      // Turning a sign moves a small weight by twice the smallest magnitude, towards it or away.
      const float cost = in_.w[j] * x_[j];
      if (cost < lowest) {
        lowest = cost;
        cheapest = j;
      }
    }
    if (!Layout::kEvenSigns || !odd) return;
    x_[cheapest] = -x_[cheapest];
  }

  PointSums sums(std::size_t k, float step, std::size_t reach) const {
    const float inverse = inverse_or_zero(splat(step))[0];
    PointSums total;
    for (std::size_t j = k * kSize; j < (k + 1) * kSize; j += kGroup) {
      Search::add(x_ + j, in_.w + j, search_.nearest(x_ + j, in_.w + j, step, inverse, reach),
                  total);
    }
    return total;
  }

  /// The best real-valued scale of sub-block k.
  void fit_sub_block(std::size_t k) {
    const float* x = x_ + k * kSize;
    const float* w = in_.w + k * kSize;
    double square = 0;
    double weight = 0;
    for (std::size_t j = 0; j < kSize; ++j) {
      square += double{w[j]} * x[j] * x[j];
      weight += w[j];
    }
    if (square == 0) return;
    const auto usual = static_cast<float>(std::sqrt(square / weight)) / Layout::kUsual;
    float best_error = std::numeric_limits<float>::infinity();
    for (const float start : starts(x, w, usual)) {
      float step = start;
      for (int round = 0; round < kRounds; ++round) {
        const PointSums fit = sums(k, step, kReach);
        if (!(fit.energy > 0 && fit.correlation > 0)) break;
        step = fit.correlation / fit.energy;
        const auto error = static_cast<float>(square - double{fit.correlation} * step);
        if (error >= best_error) break;
        best_error = error;
        target_[k] = step;
        energy_[k] = fit.energy;
      }
    }
  }

  static constexpr std::size_t kStarts = 4;

  /// Scales that suit the weights one by one: the best of a range around the usual one, and the
  /// one that suits equal weights.
  std::array<float, kStarts> starts(const float* x, const float* w, float usual) const {
    constexpr float kLow = 0.45F;
    constexpr float kRatio = 1.13F;
    constexpr std::size_t kTrials = 16;
    constexpr std::size_t kBest = kStarts - 1;
    std::array<float, kStarts> steps{};
    steps[kBest] = usual * Layout::kUsual / static_cast<float>(Book::kValues[0]);
    std::array<float, kBest> errors;
    errors.fill(std::numeric_limits<float>::infinity());
    float trial = usual * kLow;
    for (std::size_t i = 0; i < kTrials; i += kLanes) {
      Lanes step{};
      for (std::size_t lane = 0; lane < kLanes; ++lane, trial *= kRatio) step[lane] = trial;
      const SymmetricSums fit = symmetric_sums<MagnitudeLevels<Book>>(x, w, kSize, step);
      const Lanes error = fit.refitted_error();
      const Lanes refitted = step + fit.step();
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        if (!(error[lane] < errors[kBest - 1])) continue;
        std::size_t at = kBest - 1;
        for (; at > 0 && error[lane] < errors[at - 1]; --at) {
          errors[at] = errors[at - 1];
          steps[at] = steps[at - 1];
        }
        errors[at] = error[lane];
        steps[at] = refitted[lane];
      }
    }
    return steps;
  }

  static int nearest_integer(float ratio) {
    const float half = std::clamp((ratio - 1) / 2, 0.0F, static_cast<float>(kLargestInteger / 2));
    return 2 * static_cast<int>(half + 0.5F) + 1;
  }

  /// Steps with which odd integers come close to all targets, codes as they are: the best two of
  /// those at which the largest target is one of the upper integers.
  std::array<float, kSharedTrials> shared_steps() const {
    const float largest = *std::max_element(target_, target_ + kCount);
    std::array<float, kSharedTrials> steps{};
    std::array<double, kSharedTrials> costs;
    costs.fill(HUGE_VAL);
    for (int top = kLargestInteger + 6; top > kLargestInteger / 2; --top) {
      const float first = largest / static_cast<float>(top);
      const float step = refitted_step(first);
      const double cost = cost_of(step);
      if (cost < costs[0]) {
        if (std::fabs(step - steps[0]) > 1e-3F * step) {
          steps[1] = steps[0];
          costs[1] = costs[0];
        }
        steps[0] = step;
        costs[0] = cost;
      } else if (cost < costs[1] && std::fabs(step - steps[0]) > 1e-3F * step) {
        steps[1] = step;
        costs[1] = cost;
      }
    }
    return steps;
  }

  float refitted_step(float step) const {
    if (!(step > 0)) return 0;
    double correlation = 0;
    double energy = 0;
    for (std::size_t k = 0; k < kCount; ++k) {
      const double integer = nearest_integer(target_[k] / step);
      correlation += energy_[k] * target_[k] * integer;
      energy += energy_[k] * integer * integer;
    }
    return energy > 0 ? static_cast<float>(correlation / energy) : step;
  }
  double cost_of(float step) const {
    if (!(step > 0)) return HUGE_VAL;
    double cost = 0;
    for (std::size_t k = 0; k < kCount; ++k) {
      const float miss = target_[k] - step * static_cast<float>(nearest_integer(target_[k] / step));
      cost += double{energy_[k]} * miss * miss;
    }
    return cost;
  }

  /// The step that the nearest f16 gives.
  float rounded(float step) const {
    return in_.units.rounded(step / Layout::kUnit) * Layout::kUnit;
  }

  /// Alternates integers and the shared step, beginning with `step`.
  void improve(float step) {
    for (int round = 0; round < kRounds; ++round) {
      step = rounded(step);
      if (!(step > 0)) return;
      Choice choice{.step = step, .integers = {}, .error = 0};
      double correlation = 0;
      double energy = 0;
      for (std::size_t k = 0; k < kCount; ++k) choose(k, choice, correlation, energy);
      if (choice.error < best_.error) best_ = choice;
      if (!(energy > 0)) return;
      const auto refitted = static_cast<float>(correlation / energy);
      if (rounded(refitted) == step) return;
      step = refitted;
    }
  }

  /// The better of the two odd integers around the target of sub-block k.
  void choose(std::size_t k, Choice& choice, double& correlation, double& energy) const {
    const float ratio = target_[k] / choice.step;
    const int near = nearest_integer(ratio);
    const int other =
        std::clamp(static_cast<float>(near) < ratio ? near + 2 : near - 2, 1, kLargestInteger);
    PointSums best;
    best.error = std::numeric_limits<float>::infinity();
    for (const int integer : {near, other}) {
      if (integer == near && best.error < std::numeric_limits<float>::infinity()) continue;
      const PointSums fit = sums(k, choice.step * static_cast<float>(integer), kReach);
      if (!(fit.error < best.error)) continue;
      best = fit;
      choice.integers[k] = integer;
    }
    const double integer = choice.integers[k];
    choice.error += best.error;
    correlation += integer * best.correlation;
    energy += integer * integer * best.energy;
  }

  BlockParameters finish() const {
    BlockParameters block;
    std::fill_n(block.scales, kCount, std::int8_t{1});
    double zeros = 0;
    for (std::size_t j = 0; j < kSuperBlock; ++j) zeros += double{in_.w[j]} * x_[j] * x_[j];
    const bool nothing = !(best_.error < zeros);
    if (!nothing) block.scale = in_.units.to_half(best_.step / Layout::kUnit);
    for (std::size_t k = 0; k < kCount; ++k) {
      if (!nothing) block.scales[k] = static_cast<std::int8_t>(best_.integers[k]);
      const float step = nothing ? 0.0F : best_.step * static_cast<float>(best_.integers[k]);
      for (std::size_t j = k * kSize; j < (k + 1) * kSize; j += kSignGroup) {
        choose_signed_group<Book, Layout::kEvenSigns>(in_.x + j, in_.w + j, step, block.codes + j);
      }
    }
    return block;
  }

  const SuperBlockInput& in_;
  Search search_;
  alignas(16) float x_[kSuperBlock];
  float target_[kCount] = {};
  float energy_[kCount] = {};
  Choice best_;
};

/// Layout as above.
template <class Layout>
BlockParameters search_codebook_super_block(const float* weights, const float* importance) {
  const SuperBlockInput input(weights, importance);
  return CodebookSearch<Layout>(input).run();
}

}  // namespace winnow::quant

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "quant/stock/search.h"

namespace winnow::quant::stock {
namespace {

/// The search for x = scale * level + base, base <= 0.
class MinimumSearch {
 public:
  MinimumSearch(const Run& run, int top, const MinimumGrid& grid, std::uint8_t* codes)
      : run_(run), top_(top), grid_(grid), codes_(codes), base_(run.x[0]), high_(run.x[0]) {
    total_weight_ = run.w[0];
    total_ = total_weight_ * run.x[0];
    for (std::size_t j = 1; j < run.count; ++j) {
      base_ = std::min(base_, run.x[j]);
      high_ = std::max(high_, run.x[j]);
      total_weight_ += run.w[j];
      total_ += run.w[j] * run.x[j];
    }
    base_ = std::min(base_, 0.0F);
  }

  ScaleAndMinimum run() {
    std::fill_n(codes_, run_.count, std::uint8_t{0});
    if (high_ <= base_) return {0, -base_};
    const auto top = static_cast<float>(top_);
    const float inverse = top / (high_ - base_);
    scale_ = 1 / inverse;
    for (std::size_t j = 0; j < run_.count; ++j) codes_[j] = code(inverse, run_.x[j]);
    error_ = error(codes_, scale_, base_);
    for (int i = 0; i <= grid_.steps; ++i) {
      // The range is that of the best fit so far: its base need not be the smallest value.
      consider((grid_.first + grid_.step * static_cast<float>(i) + top) / (high_ - base_));
    }
    return {scale_, -base_};
  }

 private:
  std::uint8_t code(float inverse, float x) const {
    return static_cast<std::uint8_t>(std::clamp(rounded(inverse * (x - base_)), 0, top_));
  }

  float error(const std::uint8_t* codes, float scale, float base) const {
    float sum = 0;
    for (std::size_t j = 0; j < run_.count; ++j) {
      const float e = scale * static_cast<float>(codes[j]) + base - run_.x[j];
      sum += run_.w[j] * (grid_.absolute ? std::fabs(e) : e * e);
    }
    return sum;
  }

  void consider(float inverse) {
    std::uint8_t codes[kLongestRun];
    float level = 0;
    float energy = 0;
    float cross = 0;
    for (std::size_t j = 0; j < run_.count; ++j) {
      codes[j] = code(inverse, run_.x[j]);
      const auto l = static_cast<float>(codes[j]);
      level += run_.w[j] * l;
      energy += run_.w[j] * l * l;
      cross += run_.w[j] * l * run_.x[j];
    }
    const float determinant = total_weight_ * energy - level * level;
    if (!(determinant > 0)) return;
    float scale = (total_weight_ * cross - total_ * level) / determinant;
    float base = (energy * total_ - level * cross) / determinant;
    if (base > 0) {
      base = 0;
      scale = cross / energy;
    }
    const float trial = error(codes, scale, base);
    if (!(trial < error_)) return;
    std::copy_n(codes, run_.count, codes_);
    error_ = trial;
    scale_ = scale;
    base_ = base;
  }

  const Run& run_;
  int top_;
  const MinimumGrid& grid_;
  std::uint8_t* codes_;
  float base_;
  float high_;
  float total_weight_ = 0;
  float total_ = 0;  // sum w x
  float scale_ = 0;
  float error_ = 0;
};

}  // namespace

ScaleAndMinimum fit_with_minimum(const Run& run, int top, const MinimumGrid& grid,
                                 std::uint8_t* codes) {
  return MinimumSearch(run, top, grid, codes).run();
}

namespace {

/// The inverse scale of least error among nine around the plain one.
float best_inverse(const Run& run, int top, float largest) {
  constexpr int kSteps = 4;
  float best = static_cast<float>(top) / largest;
  const auto error = [&](float inverse, bool capped) {
    const float scale = 1 / inverse;
    float sum = 0;
    for (std::size_t j = 0; j < run.count; ++j) {
      const int nearest = rounded(inverse * run.x[j]);
      const int integer = capped ? std::min(top, nearest) : static_cast<std::uint8_t>(nearest);
      const float e = run.x[j] - scale * static_cast<float>(integer);
      sum += run.w[j] * e * e;
    }
    return sum;
  };
  float least = error(best, /*capped=*/false);
  for (int step = -kSteps; step <= kSteps; ++step) {
    if (step == 0) continue;
    const float inverse = (0.1F * static_cast<float>(step) + static_cast<float>(top)) / largest;
    const float trial = error(inverse, /*capped=*/true);
    if (!(trial < least)) continue;
    least = trial;
    best = inverse;
  }
  return best;
}

bool move_integer(float x, float w, int top, std::uint8_t& integer, LevelSums& sums) {
  const auto old = static_cast<float>(integer);
  LevelSums others{sums.cross - w * x * old, sums.energy - w * old * old};
  if (!(others.cross > 0 && others.energy > 0)) return false;
  const int wanted = std::min(top, rounded(x * others.energy / others.cross));
  if (wanted == integer) return false;
  const auto l = static_cast<float>(wanted);
  others.cross += w * x * l;
  others.energy += w * l * l;
  if (!(others.cross * others.cross * sums.energy > sums.cross * sums.cross * others.energy)) {
    return false;
  }
  integer = static_cast<std::uint8_t>(wanted);
  sums = others;
  return true;
}

}  // namespace

float fit_integers(const Run& run, int top, std::uint8_t* integers) {
  constexpr int kPasses = 5;
  std::fill_n(integers, run.count, std::uint8_t{0});
  float largest = 0;
  for (std::size_t j = 0; j < run.count; ++j) largest = std::max(largest, run.x[j]);
  if (largest < kNothing) return 0;
  const float inverse = best_inverse(run, top, largest);
  LevelSums sums;
  for (std::size_t j = 0; j < run.count; ++j) {
    const int integer = std::min(top, rounded(inverse * run.x[j]));
    integers[j] = static_cast<std::uint8_t>(integer);
    const auto l = static_cast<float>(integer);
    sums.cross += run.w[j] * run.x[j] * l;
    sums.energy += run.w[j] * l * l;
  }
  bool moved = true;
  for (int pass = 0; pass < kPasses && moved; ++pass) {
    moved = false;
    for (std::size_t j = 0; j < run.count; ++j) {
      moved |= move_integer(run.x[j], run.w[j], top, integers[j], sums);
    }
  }
  return sums.scale();
}

}  // namespace winnow::quant::stock

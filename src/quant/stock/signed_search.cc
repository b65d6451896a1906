// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "quant/stock/search.h"

#include <algorithm>
#include <cmath>

#include "quant/levels.h"

namespace winnow::quant::stock {
namespace {

/// Levels of x times `inverse`.
struct SignedRounding {
  float inverse;
  int edge;

  int level(float x) const { return std::clamp(rounded(inverse * x), -edge, edge - 1); }
  LevelSums sums(const Run& run) const {
    LevelSums result;
    for (std::size_t j = 0; j < run.count; ++j) {
      const auto l = static_cast<float>(level(run.x[j]));
      result.cross += run.w[j] * run.x[j] * l;
      result.energy += run.w[j] * l * l;
    }
    return result;
  }
};

}  // namespace

float extreme(const float* x, std::size_t count) {
  float found = 0;
  for (std::size_t j = 0; j < count; ++j) {
    if (std::fabs(x[j]) > std::fabs(found)) found = x[j];
  }
  return found;
}

float sum_of_squares(const float* x, std::size_t count) {
  float sum = 0;
  for (std::size_t j = 0; j < count; ++j) sum += x[j] * x[j];
  return sum;
}

float fit_signed(const Run& run, int edge, std::uint8_t* codes) {
  constexpr int kSteps = 9;
  std::fill_n(codes, run.count, std::uint8_t{0});
  const float peak = extreme(run.x, run.count);
  if (std::fabs(peak) < kNothing) return 0;
  const auto top = static_cast<float>(edge);
  SignedRounding best{-top / peak, edge};
  const LevelSums plain = best.sums(run);
  float scale = plain.energy != 0 ? plain.cross / plain.energy : 0.0F;
  float gain = scale * plain.cross;
  for (int step = -kSteps; step <= kSteps; ++step) {
    if (step == 0) continue;
    const SignedRounding trial{-(top + 0.1F * static_cast<float>(step)) / peak, edge};
    const LevelSums sums = trial.sums(run);
    if (!sums.gains_over(gain)) continue;
    best = trial;
    scale = sums.cross / sums.energy;
    gain = scale * sums.cross;
  }
  for (std::size_t j = 0; j < run.count; ++j) {
    codes[j] = static_cast<std::uint8_t>(best.level(run.x[j]) + edge);
  }
  return scale;
}

namespace {

/// Moves the level of one value to where the scale of all others wants it, if that gains.
bool move_level(float x, float w, int edge, int& level, LevelSums& sums) {
  const auto old = static_cast<float>(level);
  LevelSums others{sums.cross - w * x * old, sums.energy - w * old * old};
  if (!(others.cross > 0)) return false;
  const int wanted = std::clamp(rounded(x * others.energy / others.cross), -edge, edge - 1);
  if (wanted == level) return false;
  const auto l = static_cast<float>(wanted);
  others.cross += w * x * l;
  others.energy += w * l * l;
  const bool gains = others.energy > 0 && others.cross * others.cross * sums.energy >
                                              sums.cross * sums.cross * others.energy;
  if (!gains) return false;
  level = wanted;
  sums = others;
  return true;
}

}  // namespace

float refine_signed(const Run& run, int edge, std::uint8_t* codes) {
  constexpr int kPasses = 5;
  std::fill_n(codes, run.count, std::uint8_t{0});
  const float peak = extreme(run.x, run.count);
  if (std::fabs(peak) < kNothing) return 0;
  const SignedRounding start{static_cast<float>(-edge) / peak, edge};
  int levels[kLongestRun];
  for (std::size_t j = 0; j < run.count; ++j) levels[j] = start.level(run.x[j]);
  LevelSums sums = start.sums(run);
  bool moved = true;
  for (int pass = 0; pass < kPasses && moved; ++pass) {
    moved = false;
    for (std::size_t j = 0; j < run.count; ++j) {
      moved |= move_level(run.x[j], run.w[j], edge, levels[j], sums);
    }
  }
  for (std::size_t j = 0; j < run.count; ++j)
    codes[j] = static_cast<std::uint8_t>(levels[j] + edge);
  return sums.scale();
}

std::uint8_t curved_index(float v) {
  const auto& values = CurvedLevels::kValues;
  const float twice = v + v;
  std::uint8_t index = 0;
  for (std::size_t i = 1; i < values.size(); ++i) {
    const bool below = twice < static_cast<float>(values[i - 1] + values[i]);
    if (!below) ++index;
  }
  return index;
}

float fit_curved(const Run& run) {
  constexpr int kSteps = 7;
  const float peak = extreme(run.x, run.count);
  if (std::fabs(peak) < kNothing) return 0;
  const auto sums_at = [&](float inverse) {
    LevelSums sums;
    for (std::size_t j = 0; j < run.count; ++j) {
      const auto q = static_cast<float>(CurvedLevels::kValues[curved_index(inverse * run.x[j])]);
      sums.cross += run.w[j] * q * run.x[j];
      sums.energy += run.w[j] * q * q;
    }
    return sums;
  };
  const float lowest = CurvedLevels::kValues[0];
  const LevelSums plain = sums_at(1 / (-peak / lowest));
  float scale = plain.scale();
  float gain = scale * plain.cross;
  for (int step = -kSteps; step <= kSteps; ++step) {
    const LevelSums sums = sums_at((static_cast<float>(step) + lowest) / peak);
    if (!sums.gains_over(gain)) continue;
    scale = sums.cross / sums.energy;
    gain = scale * sums.cross;
  }
  return scale;
}

}  // namespace winnow::quant::stock

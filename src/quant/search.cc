// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "quant/search.h"

#include <algorithm>
#include <cmath>

#include "tensor/half.h"

namespace winnow::quant {

std::uint16_t BlockUnits::to_half(float scale) const {
  constexpr float kLargestHalf = 65504.0F;
  return tensor::float_to_half(std::clamp(scale * unit, -kLargestHalf, kLargestHalf));
}

float BlockUnits::from_half(std::uint16_t bits) const { return tensor::half_to_float(bits) / unit; }

BlockUnits normalize(const float* weights, const float* importance, std::size_t count, float* x,
                     float* w) {
  float largest = 0;
  float largest_importance = 0;
  for (std::size_t j = 0; j < count; ++j) {
    largest = std::max(largest, std::fabs(weights[j]));
    if (importance != nullptr) largest_importance = std::max(largest_importance, importance[j]);
  }
  // The smallest scale is 2^-24 and the smallest level 1.
  BlockUnits units;
  units.unit = largest < 0x1p-25F ? 0.0F : std::ldexp(1.0F, std::ilogb(largest));
  const float inverse = units.unit > 0 ? 1.0F / units.unit : 0.0F;
  for (std::size_t j = 0; j < count; ++j) {
    x[j] = weights[j] * inverse;
    w[j] = largest_importance > 0 ? std::max(importance[j] / largest_importance, 1e-7F) : 1.0F;
  }
  return units;
}

float largest_magnitude(const float* x, std::size_t count) {
  float largest = 0;
  for (std::size_t j = 0; j < count; ++j) largest = std::max(largest, std::fabs(x[j]));
  return largest;
}

AffineFit refit_affine(const AffineSums& sums, float total_weight, Lanes scale, Lanes base,
                       BaseRange range) {
  // Least squares for the change (u, v) of (scale, base):
  //   energy * u + level * v = level_residual,  level * u + weight * v = residual.
  const Lanes weight = splat(total_weight);
  const Lanes determinant = sums.energy * weight - sums.level * sums.level;
  // All codes equal: the two unknowns are one; leave the scale and move the base.
  const auto singular = determinant <= 1e-6F * sums.energy * weight;
  const Lanes divisor = singular ? splat(1.0F) : determinant;
  Lanes u = (sums.level_residual * weight - sums.residual * sums.level) / divisor;
  Lanes v = (sums.residual * sums.energy - sums.level_residual * sums.level) / divisor;
  u = singular ? splat(0.0F) : u;
  v = singular ? sums.residual / weight : v;
  if (range == BaseRange::kNegativeOrZero) {
    const auto outside = base + v > 0.0F;
    v = outside ? -base : v;
    const Lanes energy = sums.energy > 0.0F ? sums.energy : splat(1.0F);
    u = outside ? (sums.level_residual - v * sums.level) / energy : u;
  }
  const Lanes error = sums.error - 2.0F * (u * sums.level_residual + v * sums.residual) +
                      u * (u * sums.energy + 2.0F * v * sums.level) + v * v * weight;
  return {scale + u, base + v, error};
}

}  // namespace winnow::quant

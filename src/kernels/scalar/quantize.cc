// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Reference for the int8 form of activations.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/kernels.h"

namespace winnow::kernels::scalar {
namespace {

/// The scale of one block: 0 when the largest magnitude / 127 is no normal number, NaN when the
/// block holds an infinity or a NaN, so that every product with the block shows it.
float block_scale(const float* x) {
  float largest = 0;
  for (std::size_t j = 0; j < kActivationBlock; ++j) {
    if (!std::isfinite(x[j])) return std::numeric_limits<float>::quiet_NaN();
    largest = std::max(largest, std::fabs(x[j]));
  }
  const float scale = largest / 127.0F;
  return scale >= std::numeric_limits<float>::min() ? scale : 0.0F;
}

}  // namespace

void quantize_activations(const float* x, std::size_t n, std::int8_t* codes, float* scales,
                          std::int32_t* sums) noexcept {
  for (std::size_t b = 0; b < n / kActivationBlock; ++b) {
    const float scale = block_scale(x + b * kActivationBlock);
    scales[b] = scale;
    for (std::size_t j = b * kActivationBlock; j < (b + 1) * kActivationBlock; ++j) {
      // |x / scale| <= 127 * (1 + 2^-23), which rounds to 127: nothing to clamp.
      codes[j] = scale > 0 ? static_cast<std::int8_t>(std::nearbyint(x[j] / scale)) : 0;
    }
  }
  for (std::size_t g = 0; g < n / kActivationSumGroup; ++g) {
    sums[g] = 0;
    for (std::size_t j = 0; j < kActivationSumGroup; ++j) {
      sums[g] += codes[g * kActivationSumGroup + j];
    }
  }
}

}  // namespace winnow::kernels::scalar

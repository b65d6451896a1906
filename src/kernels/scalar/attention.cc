// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Reference for attention: rotary embedding (arXiv:2104.09864), the stored form of keys and values,
// and softmax(q K^T) V with a running maximum (arXiv:1805.02867), one position after the other.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/kernels.h"
#include "tensor/half.h"

namespace winnow::kernels::scalar {
namespace {

/// Element `index` of a strip, with scale `scale_index` where there are scales.
float element(const KvLayout& layout, const std::byte* strip, std::size_t index,
              std::size_t scale_index) {
  if (layout.type == KvType::kF32) return reinterpret_cast<const float*>(strip)[index];
  const auto* halves = reinterpret_cast<const std::uint16_t*>(strip);
  if (layout.type == KvType::kF16) return tensor::half_to_float(halves[index]);
  const auto* scales = reinterpret_cast<const std::uint16_t*>(strip + layout.scales_offset());
  // 8 bits times 11: exact.
  return static_cast<float>(reinterpret_cast<const std::int8_t*>(strip)[index]) *
         tensor::half_to_float(scales[scale_index]);
}

/// The f16 scale of a block, largest / 127: NaN when it holds an infinity or a NaN.
std::uint16_t block_scale(const float* x, std::size_t n) {
  float largest = 0;
  for (std::size_t j = 0; j < n; ++j) {
    if (!std::isfinite(x[j])) return tensor::float_to_half(std::numeric_limits<float>::quiet_NaN());
    largest = std::max(largest, std::fabs(x[j]));
  }
  return tensor::float_to_half(largest / 127.0F);
}

/// A scale below the normal numbers of f16 may have lost so much that a quotient exceeds 127.
std::int8_t code_of(float x, float scale) {
  if (!(scale > 0)) return 0;
  return static_cast<std::int8_t>(std::nearbyint(std::clamp(x / scale, -127.0F, 127.0F)));
}

/// index(d) and scale_index(d) say where element d of `x` [head_dim] goes.
template <typename Index, typename ScaleIndex>
void store_elements(const KvLayout& layout, const float* x, std::byte* strip, Index index,
                    ScaleIndex scale_index) {
  auto* halves = reinterpret_cast<std::uint16_t*>(strip);
  auto* scales = reinterpret_cast<std::uint16_t*>(strip + layout.scales_offset());
  for (std::size_t d = 0; d < layout.head_dim; ++d) {
    if (layout.type == KvType::kF32) {
      reinterpret_cast<float*>(strip)[index(d)] = x[d];
    } else if (layout.type == KvType::kF16) {
      halves[index(d)] = tensor::float_to_half(x[d]);
    } else {
      std::uint16_t& scale = scales[scale_index(d)];
      if (d % KvLayout::kBlock == 0) {
        scale = block_scale(x + d, std::min(KvLayout::kBlock, layout.head_dim - d));
      }
      reinterpret_cast<std::int8_t*>(strip)[index(d)] = code_of(x[d], tensor::half_to_float(scale));
    }
  }
}

/// One query over its visible positions.
void attend_one(const AttentionTask& task, const float* query, std::size_t visible, float* out) {
  const KvLayout& layout = task.layout;
  const std::size_t dim = layout.head_dim;
  float largest = -std::numeric_limits<float>::infinity();
  float sum = 0;
  std::fill_n(out, dim, 0.0F);
  for (std::size_t position = 0; position < visible; ++position) {
    const std::size_t lane = position % KvLayout::kStrip;
    const std::size_t strip = position / KvLayout::kStrip * layout.strip_bytes();
    float score = 0;
    for (std::size_t d = 0; d < dim; ++d) {
      score += query[d] * task.scale *
               element(layout, task.keys + strip, KvLayout::key_index(lane, d),
                       KvLayout::key_scale_index(lane, d));
    }
    if (score > largest) {  // what has been summed was relative to a smaller maximum
      const float correction = std::exp(largest - score);
      sum *= correction;
      for (std::size_t d = 0; d < dim; ++d) out[d] *= correction;
      largest = score;
    }
    const float weight = std::exp(score - largest);
    sum += weight;
    for (std::size_t d = 0; d < dim; ++d) {
      out[d] += weight * element(layout, task.values + strip, layout.value_index(lane, d),
                                 layout.value_scale_index(lane, d));
    }
  }
  for (std::size_t d = 0; d < dim; ++d) out[d] /= sum;
}

}  // namespace

void rotate_halves(float* x, const float* cosines, const float* sines, std::size_t half) noexcept {
  for (std::size_t i = 0; i < half; ++i) {
    const float a = x[i];
    const float b = x[half + i];
    x[i] = a * cosines[i] - b * sines[i];
    x[half + i] = b * cosines[i] + a * sines[i];
  }
}

void store_key_value(const KvLayout& layout, const float* key, const float* value,
                     std::size_t position, std::byte* keys, std::byte* values) noexcept {
  const std::size_t lane = position % KvLayout::kStrip;
  const std::size_t strip = position / KvLayout::kStrip * layout.strip_bytes();
  store_elements(
      layout, key, keys + strip, [&](std::size_t d) { return KvLayout::key_index(lane, d); },
      [&](std::size_t d) { return KvLayout::key_scale_index(lane, d); });
  store_elements(
      layout, value, values + strip, [&](std::size_t d) { return layout.value_index(lane, d); },
      [&](std::size_t d) { return layout.value_scale_index(lane, d); });
}

void attend(const AttentionTask& task, std::byte*) noexcept {
  for (std::size_t t = 0; t < task.tokens; ++t) {
    for (std::size_t h = 0; h < task.group; ++h) {
      const std::size_t at = t * task.token_stride + h * task.layout.head_dim;
      attend_one(task, task.queries + at, task.visible + t, task.out + at);
    }
  }
}

}  // namespace winnow::kernels::scalar

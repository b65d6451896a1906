// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Products of f32 matrices of which the left one has few rows. A tile of kProductRows rows x
// kProductVectors vectors of sums stays in registers over a stretch of t, for which the left values
// are packed once and broadcast from memory. Stretches keep the part of b that a tile reads close;
// the sums rest in `out` between them, so that no blocking changes a bit.

/// Values of t at a time.
inline constexpr std::size_t kProductDepth = 256;

/// Adds the products of `depth` values of t to the sums at out; of the last vector of columns, the
/// first `present` are touched.
template <std::size_t kVectors>
WINNOW_INLINE void product_tile(const float* left, const float* b, std::size_t b_stride,
                                std::size_t depth, std::size_t height, std::size_t present,
                                bool begin, float* out, std::size_t out_stride) {
  Floats sums[kProductRows][kVectors];
  for (std::size_t r = 0; r < kProductRows; ++r) {
    for (std::size_t v = 0; v < kVectors; ++v) {
      const float* const from = out + r * out_stride + v * kLanes;
      const bool none = begin || r >= height;
      const bool whole = v + 1 < kVectors || present == kLanes;
      sums[r][v] = none ? broadcast(0.0F) : whole ? load(from) : load_first(from, present);
    }
  }
  for (std::size_t t = 0; t < depth; ++t, left += kProductRows, b += b_stride) {
    Floats columns[kVectors];
    for (std::size_t v = 0; v + 1 < kVectors; ++v) columns[v] = load(b + v * kLanes);
    const float* const last = b + (kVectors - 1) * kLanes;
    columns[kVectors - 1] = present == kLanes ? load(last) : load_first(last, present);
    for (std::size_t r = 0; r < kProductRows; ++r) {
      const Floats value = broadcast(left[r]);
      for (std::size_t v = 0; v < kVectors; ++v) sums[r][v] = fma(value, columns[v], sums[r][v]);
    }
  }
  for (std::size_t r = 0; r < height; ++r) {
    for (std::size_t v = 0; v < kVectors; ++v) {
      float* const to = out + r * out_stride + v * kLanes;
      if (v + 1 < kVectors || present == kLanes) {
        store(to, sums[r][v]);
      } else {
        store_first(to, sums[r][v], present);
      }
    }
  }
}

/// left[t][r] = scale * a(first + r, begin + t); zeros from `height` on.
WINNOW_INLINE void pack_factor(const FloatProduct& task, std::size_t first, std::size_t height,
                               std::size_t begin, std::size_t depth, float* left) {
  for (std::size_t r = 0; r < kProductRows; ++r) {
    if (r >= height) {
      for (std::size_t t = 0; t < depth; ++t) left[t * kProductRows + r] = 0.0F;
      continue;
    }
    const float* const a = task.a + (first + r) * task.row_stride + begin * task.column_stride;
    for (std::size_t t = 0; t < depth; ++t) {
      left[t * kProductRows + r] = task.scale * a[t * task.column_stride];
    }
  }
}

/// A product over no columns at all, whose factors own no memory: a matrix of rank 0.
WINNOW_INLINE void multiply_nothing(const FloatProduct& task) noexcept {
  if (task.add) return;
  for (std::size_t i = 0; i < task.out.rows; ++i) {
    std::fill_n(task.out.data + i * task.out.row_stride, task.out.cols, 0.0F);
  }
}

void multiply(const FloatProduct& task) noexcept {
  if (task.b.rows == 0) return multiply_nothing(task);
  float left[kProductDepth * kProductRows];
  const std::size_t columns = task.out.cols;
  for (std::size_t t = 0; t < task.b.rows; t += kProductDepth) {
    const std::size_t depth = std::min(kProductDepth, task.b.rows - t);
    const bool begin = t == 0 && !task.add;
    for (std::size_t i = 0; i < task.out.rows; i += kProductRows) {
      const std::size_t height = std::min(kProductRows, task.out.rows - i);
      pack_factor(task, i, height, t, depth, left);
      for (std::size_t j = 0; j < columns;) {
        const float* const b = task.b.data + t * task.b.row_stride + j;
        float* const out = task.out.data + i * task.out.row_stride + j;
        if (columns - j >= kProductVectors * kLanes) {
          product_tile<kProductVectors>(left, b, task.b.row_stride, depth, height, kLanes, begin,
                                        out, task.out.row_stride);
          j += kProductVectors * kLanes;
        } else {
          const std::size_t present = std::min(columns - j, kLanes);
          product_tile<1>(left, b, task.b.row_stride, depth, height, present, begin, out,
                          task.out.row_stride);
          j += present;
        }
      }
    }
  }
}

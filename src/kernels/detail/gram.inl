// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Gram matrices of f32 rows, summed in f32 within a call and in f64 over calls. A tile of kGramRows
// x 2 vectors of sums stays in registers over all tokens: for each, two vectors are read and the
// weighted left values, packed once for a stretch of rows, are broadcast from memory. What limits
// it is multiply-adds. Every sum is one chain over the tokens, so no blocking changes a bit.
// To be included after columns.inl.

inline constexpr std::size_t kGramColumns = 2 * kLanes;

/// sums[j] += products[j], in f64.
WINNOW_INLINE void add_widened(const float* products, std::size_t count, double* sums) {
  std::size_t j = 0;
  for (; j + kWide <= count; j += kWide) {
    store_doubles(sums + j, load_doubles(sums + j) + widen(products + j));
  }
  for (; j < count; ++j) sums[j] += double{products[j]};
}

/// products[r][j] = sum_t left[t][r] * rows[t][j] for kVectors vectors of columns; of the last, the
/// first `present` are read and the others zero.
template <std::size_t kVectors>
WINNOW_INLINE void gram_tile(const float* left, const float* const* rows, std::size_t count,
                             std::size_t column, std::size_t present,
                             float (*products)[kGramColumns]) {
  Floats sums[kGramRows][kVectors];
  for (auto& row : sums) {
    for (Floats& sum : row) sum = broadcast(0.0F);
  }
  for (std::size_t t = 0; t < count; ++t, left += kGramRows) {
    const float* const x = rows[t] + column;
    Floats columns[kVectors];
    for (std::size_t v = 0; v + 1 < kVectors; ++v) columns[v] = load(x + v * kLanes);
    columns[kVectors - 1] = present == kLanes ? load(x + (kVectors - 1) * kLanes)
                                              : load_first(x + (kVectors - 1) * kLanes, present);
    for (std::size_t r = 0; r < kGramRows; ++r) {
      const Floats value = broadcast(left[r]);
      for (std::size_t v = 0; v < kVectors; ++v) sums[r][v] = fma(value, columns[v], sums[r][v]);
    }
  }
  for (std::size_t r = 0; r < kGramRows; ++r) {
    for (std::size_t v = 0; v < kVectors; ++v) store(products[r] + v * kLanes, sums[r][v]);
  }
}

/// left[t][r] = weight of t * rows[t][first + r]; zeros from `height` on.
WINNOW_INLINE void pack_left(const float* const* rows, const float* weights, std::size_t count,
                             std::size_t first, std::size_t height, float* left) {
  static_assert(kGramRows <= kLanes);
  for (std::size_t t = 0; t < count; ++t) {
    const Floats weight = broadcast(weights == nullptr ? 1.0F : weights[t]);
    store_first(left + t * kGramRows, mul(weight, load_first(rows[t] + first, height)), kGramRows);
  }
}

void add_gram(const float* const* rows, const float* weights, std::size_t count, std::size_t begin,
              std::size_t end, double* sums) noexcept {
  float left[kGramTokens * kGramRows];
  float products[kGramRows][kGramColumns];
  for (std::size_t i0 = begin; i0 < end; i0 += kGramRows) {
    const std::size_t height = std::min(kGramRows, end - i0);
    pack_left(rows, weights, count, i0, height, left);
    for (std::size_t j0 = 0; j0 < i0 + height; j0 += kGramColumns) {
      const std::size_t present = std::min(i0 + height - j0, kGramColumns);
      if (present > kLanes) {
        gram_tile<2>(left, rows, count, j0, present - kLanes, products);
      } else {
        gram_tile<1>(left, rows, count, j0, present, products);
      }
      for (std::size_t i = std::max(i0, j0); i < i0 + height; ++i) {
        add_widened(products[i - i0], std::min(kGramColumns, i + 1 - j0),
                    sums + i * (i + 1) / 2 + j0);
      }
    }
  }
}

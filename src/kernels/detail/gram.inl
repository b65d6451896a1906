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

/// products[r][j] = sum_t left[t][r] * rows[t][j] for kGramColumns columns, of which `present` are
/// read; others are zero.
template <bool kWhole>
WINNOW_INLINE void gram_tile(const float* left, const float* const* rows, std::size_t count,
                             std::size_t column, std::size_t present,
                             float (*products)[kGramColumns]) {
  const std::size_t first = present < kLanes ? present : kLanes;
  Floats sums[kGramRows][2];
  for (auto& row : sums) row[0] = row[1] = broadcast(0.0F);
  for (std::size_t t = 0; t < count; ++t, left += kGramRows) {
    const float* const x = rows[t] + column;
    const Floats low = kWhole ? load(x) : load_first(x, first);
    const Floats high = kWhole ? load(x + kLanes) : load_first(x + first, present - first);
    for (std::size_t r = 0; r < kGramRows; ++r) {
      const Floats value = broadcast(left[r]);
      sums[r][0] = fma(value, low, sums[r][0]);
      sums[r][1] = fma(value, high, sums[r][1]);
    }
  }
  for (std::size_t r = 0; r < kGramRows; ++r) {
    store(products[r], sums[r][0]);
    store(products[r] + kLanes, sums[r][1]);
  }
}

void add_gram(const float* const* rows, const float* weights, std::size_t count, std::size_t begin,
              std::size_t end, double* sums) noexcept {
  float left[kGramTokens * kGramRows];
  float products[kGramRows][kGramColumns];
  for (std::size_t i0 = begin; i0 < end; i0 += kGramRows) {
    const std::size_t height = std::min(kGramRows, end - i0);
    for (std::size_t t = 0; t < count; ++t) {
      const float weight = weights == nullptr ? 1.0F : weights[t];
      float* const values = left + t * kGramRows;
      for (std::size_t r = 0; r < height; ++r) values[r] = weight * rows[t][i0 + r];
      for (std::size_t r = height; r < kGramRows; ++r) values[r] = 0.0F;
    }
    for (std::size_t j0 = 0; j0 < i0 + height; j0 += kGramColumns) {
      const std::size_t present = i0 + height - j0;
      if (present >= kGramColumns) {
        gram_tile<true>(left, rows, count, j0, kGramColumns, products);
      } else {
        gram_tile<false>(left, rows, count, j0, present, products);
      }
      for (std::size_t r = 0; r < height; ++r) {
        const std::size_t i = i0 + r;
        if (i < j0) continue;
        add_widened(products[r], std::min(kGramColumns, i + 1 - j0), sums + i * (i + 1) / 2 + j0);
      }
    }
  }
}

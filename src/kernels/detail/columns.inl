// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Sums in f64 over rows of f32, column by column: the rows' order is that of the additions, so any
// width of vectors gives the reference's bits. Sums stay in registers over all rows; that, and wide
// vectors, is what this is faster by. The last n % kLanes columns go one by one.

inline constexpr std::size_t kWide = kLanes / 2;  // doubles in a vector

/// `kLanes` columns of f64 sums.
struct Columns {
  Doubles low, high;
  WINNOW_INLINE static Columns load(const double* p) {
    return {load_doubles(p), load_doubles(p + kWide)};
  }
  WINNOW_INLINE void store(double* p) const {
    store_doubles(p, low);
    store_doubles(p + kWide, high);
  }
};

void column_squares(const float* const* rows, const double* weights, std::size_t count,
                    std::size_t n, double* squares, double* weighted) noexcept {
  std::size_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    Columns plain = Columns::load(squares + j);
    Columns scaled = Columns::load(weighted + j);
    for (std::size_t t = 0; t < count; ++t) {
      const Doubles low = widen(rows[t] + j);
      const Doubles high = widen(rows[t] + j + kWide);
      const Doubles low_square = low * low;
      const Doubles high_square = high * high;
      plain.low += low_square;
      plain.high += high_square;
      scaled.low += weights[t] * low_square;
      scaled.high += weights[t] * high_square;
    }
    plain.store(squares + j);
    scaled.store(weighted + j);
  }
  for (; j < n; ++j) {
    for (std::size_t t = 0; t < count; ++t) {
      const double square = double{rows[t][j]} * double{rows[t][j]};
      squares[j] += square;
      weighted[j] += weights[t] * square;
    }
  }
}

void column_values(const float* const* rows, const double* weights, std::size_t count,
                   std::size_t n, double* sums, double* weighted) noexcept {
  std::size_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    Columns plain = Columns::load(sums + j);
    Columns scaled = Columns::load(weighted + j);
    for (std::size_t t = 0; t < count; ++t) {
      const Doubles low = widen(rows[t] + j);
      const Doubles high = widen(rows[t] + j + kWide);
      plain.low += low;
      plain.high += high;
      scaled.low += weights[t] * low;
      scaled.high += weights[t] * high;
    }
    plain.store(sums + j);
    scaled.store(weighted + j);
  }
  for (; j < n; ++j) {
    for (std::size_t t = 0; t < count; ++t) {
      sums[j] += double{rows[t][j]};
      weighted[j] += weights[t] * double{rows[t][j]};
    }
  }
}

void column_magnitudes(const float* const* rows, std::size_t count, std::size_t n, double* squares,
                       double* magnitudes, float* largest) noexcept {
  std::size_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    Columns square = Columns::load(squares + j);
    Columns sum = Columns::load(magnitudes + j);
    Floats most = load(largest + j);
    for (std::size_t t = 0; t < count; ++t) {
      const Doubles low = widen(rows[t] + j);
      const Doubles high = widen(rows[t] + j + kWide);
      square.low += low * low;
      square.high += high * high;
      sum.low += low < 0.0 ? -low : low;
      sum.high += high < 0.0 ? -high : high;
      const Floats x = load(rows[t] + j);
      most = max(most, max(x, sub(broadcast(0.0F), x)));
    }
    square.store(squares + j);
    sum.store(magnitudes + j);
    store(largest + j, most);
  }
  for (; j < n; ++j) {
    for (std::size_t t = 0; t < count; ++t) {
      const float magnitude = std::fabs(rows[t][j]);
      squares[j] += double{magnitude} * double{magnitude};
      magnitudes[j] += double{magnitude};
      largest[j] = std::max(largest[j], magnitude);
    }
  }
}

void column_products(const float* const* rows, const double* weights, std::size_t count,
                     std::size_t n, double* sums) noexcept {
  std::size_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    Columns sum = Columns::load(sums + j);
    for (std::size_t t = 0; t < count; ++t) {
      sum.low += weights[t] * widen(rows[t] + j);
      sum.high += weights[t] * widen(rows[t] + j + kWide);
    }
    sum.store(sums + j);
  }
  for (; j < n; ++j) {
    for (std::size_t t = 0; t < count; ++t) sums[j] += weights[t] * double{rows[t][j]};
  }
}

/// Products of `a` with kRows rows at a time: the chains of one would wait for each other.
template <std::size_t kRows>
WINNOW_INLINE void wide_dots_of(const float* a, const float* const* rows, std::size_t n,
                                double* out) {
  constexpr std::size_t kVectors = kDotChains / kWide;
  static_assert(kDotChains % kWide == 0);
  Doubles chains[kRows][kVectors] = {};
  std::size_t j = 0;
  for (; j + kDotChains <= n; j += kDotChains) {
    for (std::size_t part = 0; part < kVectors; ++part) {
      const Doubles x = widen(a + j + part * kWide);
      for (std::size_t r = 0; r < kRows; ++r) {
        chains[r][part] += x * widen(rows[r] + j + part * kWide);
      }
    }
  }
  for (std::size_t r = 0; r < kRows; ++r) {
    double parts[kDotChains];
    std::memcpy(parts, chains[r], sizeof parts);
    double sum = 0;
    for (const double chain : parts) sum += chain;
    for (std::size_t i = j; i < n; ++i) sum += double{a[i]} * double{rows[r][i]};
    out[r] = sum;
  }
}

void wide_dots(const float* a, const float* const* rows, std::size_t count, std::size_t n,
               double* out) noexcept {
  std::size_t r = 0;
  for (; r + 4 <= count; r += 4) wide_dots_of<4>(a, rows + r, n, out + r);
  if (r + 2 <= count) {
    wide_dots_of<2>(a, rows + r, n, out + r);
    r += 2;
  }
  if (r < count) wide_dots_of<1>(a, rows + r, n, out + r);
}

float largest_magnitude(const float* x, std::size_t n) noexcept {
  const Floats zero = broadcast(0.0F);
  Floats largest = zero;
  std::size_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    largest = max(largest, max(load(x + j), sub(zero, load(x + j))));
  }
  float most = reduce_max(largest);
  for (; j < n; ++j) most = std::max(most, std::fabs(x[j]));
  return most;
}

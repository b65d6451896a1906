// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Products with few tokens. Four rows are read side by side: the four partial sums of each part are
// then reduced to one vector with nine additions and shuffles, where every lane is (part, row).

/// How far ahead of each stream lines are asked for. Of Q8_0 one thread of a Zen 5 server then
/// reads 36 GB/s; 1 KiB gave 31, 4 KiB 31, and one stream asked for 8 KiB ahead 29.
inline constexpr std::size_t kPrefetchBytes = 2048;

/// Tokens in the decoder's order, each value beside its vector of codes so that the loop over units
/// only loads. Points into scratch memory.
struct OrderedTokens {
  std::int8_t* codes;    ///< [units][unit vectors][part][16]
  float* scales;         ///< [units][part][4 times the same]
  std::int32_t* excess;  ///< [units][part][4 times the same]: what the dot product has too much
  float* sums;           ///< [units][part][4 times the same]: sums of codes, for offsets
};

template <class D>
struct OrderedLayout {
  explicit OrderedLayout(std::size_t units)
      : codes(units * D::kUnitVectors * kParts * 16), lanes(units * kLanes * sizeof(float)) {}
  std::size_t token_bytes() const {
    return codes + lanes * (1 + (kExcess<D> != 0 ? 1 : 0) + (D::kHasOffsets ? 1 : 0));
  }
  OrderedTokens token(std::byte* area, std::size_t t) const {
    std::byte* p = area + t * token_bytes();
    std::byte* excess = p + codes + lanes;
    std::byte* sums = excess + (kExcess<D> != 0 ? lanes : 0);
    return {reinterpret_cast<std::int8_t*>(p), reinterpret_cast<float*>(p + codes),
            reinterpret_cast<std::int32_t*>(excess), reinterpret_cast<float*>(sums)};
  }
  std::size_t codes;
  std::size_t lanes;
};

/// Part `part` of unit `kUnit` of a step whose first group is `first`. Without kWhole, a part may
/// lie beyond the row's end and is then zeros.
template <class D, bool kWhole, std::size_t kUnit>
WINNOW_INLINE void order_part(const QuantizedActivations& x, std::size_t t, std::size_t first,
                              std::size_t part, std::size_t unit, const OrderedTokens& out) {
  constexpr std::size_t kGroup = quant::IntegerForm::kGroup;
  const std::size_t g = first + D::group(kUnit, part);
  const bool inside = kWhole || g < x.cols / kGroup;
  std::int32_t sum = 0;
  for (std::size_t h = 0; h < D::kUnitVectors; ++h) {
    std::int8_t* to = out.codes + ((unit * D::kUnitVectors + h) * kParts + part) * kGroup;
    if (inside) {
      std::memcpy(to, x.codes_of(t) + (g + h) * kGroup, kGroup);
      sum += x.sums_of(t)[g + h];
    } else {
      std::memset(to, 0, kGroup);
    }
  }
  const std::size_t lane = unit * kLanes + 4 * part;
  std::fill_n(out.scales + lane, 4, inside ? x.scales_of(t)[g / 2] : 0.0F);
  if constexpr (kExcess<D> != 0) std::fill_n(out.excess + lane, 4, kExcess<D> * sum);
  if constexpr (D::kHasOffsets) std::fill_n(out.sums + lane, 4, static_cast<float>(sum));
}

template <class D, bool kWhole, std::size_t... kUnit>
WINNOW_INLINE void order_step(const QuantizedActivations& x, std::size_t t, std::size_t step,
                              const OrderedTokens& out, std::index_sequence<kUnit...>) {
  for (std::size_t part = 0; part < kParts; ++part) {
    (order_part<D, kWhole, kUnit>(x, t, step * D::kGroups, part, step * D::kUnits + kUnit, out),
     ...);
  }
}

template <class D>
void order_token(const QuantizedActivations& x, std::size_t t, const Steps<D>& steps,
                 const OrderedTokens& out) {
  constexpr auto kUnits = std::make_index_sequence<D::kUnits>{};
  const QuantizedActivations own = x.row_view(t);
  std::size_t step = 0;
  for (; step < steps.whole; ++step) order_step<D, true>(own, 0, step, out, kUnits);
  for (; step < steps.all; ++step) order_step<D, false>(own, 0, step, out, kUnits);
}

template <class D, std::size_t kTokens>
struct DirectTile {
  OrderedTokens tokens[kTokens];
  Floats sums[kTokens];
};

template <class D, std::size_t kTokens, std::size_t kUnit>
WINNOW_INLINE void add_unit(const typename D::Cursor (&rows)[4], Floats scale, Floats offset,
                            std::size_t unit, DirectTile<D, kTokens>& tile) {
  Codes weights[4][D::kUnitVectors];
  for (std::size_t e = 0; e < 4; ++e) {
    D::template codes<kUnit>(rows[e], weights[e]);
    for (Codes& vector : weights[e]) vector = ready<D>(vector);
  }
  for (std::size_t t = 0; t < kTokens; ++t) {
    const OrderedTokens& x = tile.tokens[t];
    Ints sums[4] = {zero_ints(), zero_ints(), zero_ints(), zero_ints()};
    for (std::size_t h = 0; h < D::kUnitVectors; ++h) {
      const Codes codes = load_codes(x.codes + (unit * D::kUnitVectors + h) * kParts * 16);
      for (std::size_t e = 0; e < 4; ++e) sums[e] = add_dot<D>(sums[e], weights[e][h], codes);
    }
    Ints dots = sum_parts_of<D>(sums);
    if constexpr (kExcess<D> != 0) dots = sub(dots, load_ints(x.excess + unit * kLanes));
    Floats term = mul(to_floats(dots), scale);
    if constexpr (D::kHasOffsets) term = fnma(offset, load(x.sums + unit * kLanes), term);
    tile.sums[t] = fma(term, load(x.scales + unit * kLanes), tile.sums[t]);
  }
}

template <class D, std::size_t kTokens, std::size_t... kUnit>
WINNOW_INLINE void add_units(const typename D::Cursor (&rows)[4], std::size_t first_unit,
                             DirectTile<D, kTokens>& tile, std::index_sequence<kUnit...>) {
  Floats scales[D::kUnits];
  Floats offsets[D::kUnits] = {};
  D::scales(rows, scales, offsets);
  (add_unit<D, kTokens, kUnit>(rows, scales[kUnit], offsets[kUnit], first_unit + kUnit, tile), ...);
}

/// The rows that are multiplied together: one from each quarter of the range, so that the memory is
/// read in four long streams, of which the processor's own prefetchers keep more lines under way
/// than of one.
template <class D>
struct FourRows {
  typename D::Cursor rows[4] = {};
  std::size_t place[4] = {};  ///< in y
  std::size_t count = 0;      ///< those behind repeat the first and are not written
};

template <class D>
FourRows<D> open_rows(const quant::PackedMatrix& w, std::size_t first_row, std::size_t end_row,
                      std::size_t quarter, std::size_t i, std::byte* scratch) {
  FourRows<D> four;
  for (std::size_t e = 0; e < 4; ++e) {
    const std::size_t row = first_row + e * quarter + i;
    if (row < end_row) {
      four.rows[e] = D::open(w, row, scratch, e);
      four.place[e] = row;
      four.count = e + 1;
    } else {
      four.rows[e] = four.rows[0];
    }
  }
  return four;
}

/// Asks for the lines to come where these rows are read for the `first` time, and for few tokens
/// always, which costs less than to ask whether. That it does so for more than one token is worth
/// 1.4 times with eight of a dense model and 1.1 times with experts, most of which then have one.
template <class D, std::size_t kTokens>
void multiply_four_rows(const FourRows<D>& four, std::size_t row_bytes, const Steps<D>& steps,
                        const OrderedTokens* tokens, bool first, tensor::MatrixView<float> y) {
  DirectTile<D, kTokens> tile;
  for (std::size_t t = 0; t < kTokens; ++t) {
    tile.tokens[t] = tokens[t];
    tile.sums[t] = broadcast(0.0F);
  }
  constexpr auto kUnits = std::make_index_sequence<D::kUnits>{};
  typename D::Cursor at[4];
  for (std::size_t step = 0; step < steps.whole; ++step) {
    for (std::size_t e = 0; e < 4; ++e) {
      at[e] = D::at(four.rows[e], step);
      if (kTokens < 4 || first) D::prefetch(at[e], kPrefetchBytes);
    }
    add_units<D, kTokens>(at, step * D::kUnits, tile, kUnits);
  }
  if (steps.whole != steps.all) {
    std::byte room[4][D::kStepBytes];
    const std::size_t rest = row_bytes - steps.whole * D::kStepBytes;
    for (std::size_t e = 0; e < 4; ++e) {
      at[e] = D::pad(D::at(four.rows[e], steps.whole), rest, room[e]);
    }
    add_units<D, kTokens>(at, steps.whole * D::kUnits, tile, kUnits);
  }
  for (std::size_t t = 0; t < kTokens; ++t) {
    float sums[4];
    store_four(sums, add_parts(tile.sums[t]));
    for (std::size_t e = 0; e < four.count; ++e) y.row(t)[four.place[e]] = sums[e];
  }
}

/// Scratch: unpacked rows (where the decoder needs them), then the tokens in order.
template <class D>
void multiply_direct(const quant::PackedMatrix& w, std::size_t first_row, std::size_t end_row,
                     const QuantizedActivations& x, tensor::MatrixView<float> y,
                     std::byte* scratch) {
  const std::size_t row_bytes = w.row_bytes();
  const std::size_t quarter = (end_row - first_row + 3) / 4;
  for (std::size_t e = 0; e < 4 && e * quarter < end_row - first_row; ++e) {
    const std::byte* stream = w.row(first_row + e * quarter);
    // They arrive while the tokens are put in order.
    for (std::size_t i = 0; i < kPrefetchBytes; i += 64) __builtin_prefetch(stream + i);
  }
  const Steps<D> steps(w.cols);
  const OrderedLayout<D> layout(steps.units());
  OrderedTokens tokens[kPanelTokens];
  for (std::size_t t = 0; t < x.tokens; ++t) {
    tokens[t] = layout.token(detail::after_integer_rows(scratch, w.cols), t);
    order_token<D>(x, t, steps, tokens[t]);
  }
  for (std::size_t i = 0; i < quarter; ++i) {
    const FourRows<D> four = open_rows<D>(w, first_row, end_row, quarter, i, scratch);
    std::size_t t = 0;
    for (; t + 4 <= x.tokens; t += 4) {
      multiply_four_rows<D, 4>(four, row_bytes, steps, tokens + t, t == 0, y.rows_from(t, 4));
    }
    if (x.tokens - t >= 2) {
      multiply_four_rows<D, 2>(four, row_bytes, steps, tokens + t, t == 0, y.rows_from(t, 2));
      t += 2;
    }
    if (t < x.tokens) {
      multiply_four_rows<D, 1>(four, row_bytes, steps, tokens + t, t == 0, y.rows_from(t, 1));
    }
  }
}

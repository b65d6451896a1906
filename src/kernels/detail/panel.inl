// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Products with many tokens. A panel is kPanelVectors * kLanes rows, unpacked once and interleaved
// so that dot products come out with a row to a lane: how, the ISA says by including
// panel_quads.inl or panel_pairs.inl before this. Activations are broadcast to all rows of the
// panel, and the two f32 operations per unit serve kLanes rows.

/// Where things lie in scratch memory. Codes: [part][unit][unit vector][4][panel vector].
struct Panel {
  std::byte* codes;
  float* scales;              ///< [part][unit][panel vector][lane]
  float* offsets;             ///< the same shape, where the decoder has offsets
  std::uint32_t* groups;      ///< [part][unit]: the unit's first group in the row
  std::size_t units;          ///< of each part, those beyond the row's end included
  std::int32_t excess;        ///< kExcess of the decoder
  std::size_t valid[kParts];  ///< units of each part that lie in the row
  /// The packed rows of the next panel, asked for while this one is multiplied.
  const std::byte* next;
  std::size_t next_lines;  ///< cache lines to ask for at each unit of a tile
};

inline constexpr std::size_t kPanelRows = kPanelVectors * kLanes;

template <class D>
Panel lay_out_panel(const Steps<D>& steps, std::size_t cols, std::byte* scratch) {
  Panel panel;
  panel.units = steps.units();
  panel.excess = kExcess<D>;
  const std::size_t vectors = kParts * panel.units * kPanelVectors;
  std::byte* p = detail::after_integer_rows(scratch, cols);
  panel.codes = p;
  p += vectors * D::kUnitVectors * 4 * kVectorBytes;
  panel.scales = reinterpret_cast<float*>(p);
  p += vectors * kLanes * sizeof(float);
  panel.offsets = reinterpret_cast<float*>(p);
  if (D::kHasOffsets) p += vectors * kLanes * sizeof(float);
  panel.groups = reinterpret_cast<std::uint32_t*>(p);
  for (std::size_t q = 0; q < kParts; ++q) {
    panel.valid[q] = 0;
    for (std::size_t unit = 0; unit < panel.units; ++unit) {
      const std::size_t g = unit / D::kUnits * D::kGroups + D::group(unit % D::kUnits, q);
      panel.groups[q * panel.units + unit] = static_cast<std::uint32_t>(g);
      if (g < steps.groups) panel.valid[q] = unit + 1;
    }
  }
  return panel;
}

/// Units of a step for kLanes rows, into panel vector `vector`.
template <class D, std::size_t kUnit>
WINNOW_INLINE void fill_unit(const typename D::Cursor (&rows)[kLanes], std::size_t unit,
                             std::size_t vector, const Panel& panel) {
  Codes codes[kLanes][D::kUnitVectors];
  for (std::size_t r = 0; r < kLanes; ++r) D::template codes<kUnit>(rows[r], codes[r]);
  for (std::size_t h = 0; h < D::kUnitVectors; ++h) {
    Codes quads[kLanes];
    for (std::size_t r = 0; r < kLanes; ++r) quads[r] = ready<D>(codes[r][h]);
    arrange_rows(quads);
    for (std::size_t i = 0; i < kLanes; ++i) {
      const std::size_t at = ((i / 4 * panel.units + unit) * D::kUnitVectors + h) * 4 + i % 4;
      store_codes_whole(panel.codes + (at * kPanelVectors + vector) * kVectorBytes, quads[i]);
    }
  }
}

WINNOW_INLINE void store_part_floats(Floats (&groups)[kParts], std::size_t unit, std::size_t vector,
                                     std::size_t units, float* out) {
  transpose_parts(groups);
  for (std::size_t q = 0; q < kParts; ++q) {
    store(out + ((q * units + unit) * kPanelVectors + vector) * kLanes, groups[q]);
  }
}

template <class D>
WINNOW_INLINE void fill_scales(const typename D::Cursor (&rows)[kLanes], std::size_t first_unit,
                               std::size_t vector, const Panel& panel) {
  Floats scales[D::kUnits][kParts];
  Floats offsets[D::kUnits][kParts];
  for (std::size_t g = 0; g < kParts; ++g) {
    const typename D::Cursor four[4] = {rows[4 * g], rows[4 * g + 1], rows[4 * g + 2],
                                        rows[4 * g + 3]};
    Floats of_four[D::kUnits];
    Floats offsets_of_four[D::kUnits] = {};
    D::scales(four, of_four, offsets_of_four);
    for (std::size_t u = 0; u < D::kUnits; ++u) {
      scales[u][g] = of_four[u];
      offsets[u][g] = offsets_of_four[u];
    }
  }
  for (std::size_t u = 0; u < D::kUnits; ++u) {
    store_part_floats(scales[u], first_unit + u, vector, panel.units, panel.scales);
    if constexpr (D::kHasOffsets) {
      store_part_floats(offsets[u], first_unit + u, vector, panel.units, panel.offsets);
    }
  }
}

template <class D, std::size_t... kUnit>
WINNOW_INLINE void fill_step(const typename D::Cursor (&rows)[kLanes], std::size_t first_unit,
                             std::size_t vector, const Panel& panel,
                             std::index_sequence<kUnit...>) {
  fill_scales<D>(rows, first_unit, vector, panel);
  (fill_unit<D, kUnit>(rows, first_unit + kUnit, vector, panel), ...);
}

/// Rows [row, row + count) into panel vector `vector`; the last row is repeated to fill it.
template <class D>
void fill_vector(const quant::PackedMatrix& w, std::size_t row, std::size_t count,
                 std::size_t vector, const Steps<D>& steps, const Panel& panel,
                 std::byte* scratch) {
  constexpr auto kUnits = std::make_index_sequence<D::kUnits>{};
  typename D::Cursor rows[kLanes] = {};
  typename D::Cursor at[kLanes];
  for (std::size_t r = 0; r < kLanes; ++r) {
    rows[r] = r < count ? D::open(w, row + r, scratch, r) : rows[count - 1];
  }
  for (std::size_t step = 0; step < steps.whole; ++step) {
    for (std::size_t r = 0; r < kLanes; ++r) at[r] = D::at(rows[r], step);
    fill_step<D>(at, step * D::kUnits, vector, panel, kUnits);
  }
  if (steps.whole == steps.all) return;
  std::byte room[kLanes][D::kStepBytes];
  const std::size_t rest = w.row_bytes() - steps.whole * D::kStepBytes;
  for (std::size_t r = 0; r < kLanes; ++r) {
    at[r] = D::pad(D::at(rows[r], steps.whole), rest, room[r]);
  }
  fill_step<D>(at, steps.whole * D::kUnits, vector, panel, kUnits);
}

/// What the multiplication has to know of a decoder: decoders that agree in it share the code.
template <std::size_t kVectors, bool kWithOffsets, CodeRange kOfCodes>
struct PanelKind {
  static constexpr std::size_t kUnitVectors = kVectors;
  static constexpr bool kHasOffsets = kWithOffsets;
  static constexpr CodeRange kRange = kOfCodes;
};

template <std::size_t kTokens>
struct PanelTokens {
  const std::int8_t* codes[kTokens];
  const float* scales[kTokens];
  const std::int32_t* sums[kTokens];
};

/// Sums of one unit of one part; w: [unit vector][4][panel vector].
template <class Kind, std::size_t kVectors, std::size_t kTokens>
WINNOW_INLINE void add_panel_unit(const std::byte* w, const float* scales, const float* offsets,
                                  std::size_t group, std::int32_t panel_excess,
                                  const PanelTokens<kTokens>& x,
                                  Floats (&sums)[kVectors][kTokens]) {
  Ints dots[kVectors][kTokens];
  std::int32_t code_sums[kTokens];
  for (std::size_t t = 0; t < kTokens; ++t) {
    code_sums[t] = x.sums[t][group];
    if constexpr (Kind::kUnitVectors == 2) code_sums[t] += x.sums[t][group + 1];
    for (auto& vector : dots) vector[t] = broadcast(-panel_excess * code_sums[t]);
  }
  add_unit_dots<Kind>(w, x, group, dots);
  for (std::size_t v = 0; v < kVectors; ++v) {
    const Floats scale = load(scales + v * kLanes);
    for (std::size_t t = 0; t < kTokens; ++t) {
      Floats term = mul(to_floats(dots[v][t]), scale);
      if constexpr (Kind::kHasOffsets) {
        const Floats code_sum = broadcast(static_cast<float>(code_sums[t]));
        term = fnma(load(offsets + v * kLanes), code_sum, term);
      }
      sums[v][t] = fma(term, broadcast(x.scales[t][group / 2]), sums[v][t]);
    }
  }
}

template <class Kind, std::size_t kVectors, std::size_t kTokens>
void multiply_panel_tile(const Panel& panel, const QuantizedActivations& x, std::size_t token,
                         tensor::MatrixView<float> y, std::size_t row, std::size_t count) {
  PanelTokens<kTokens> tokens;
  for (std::size_t t = 0; t < kTokens; ++t) {
    tokens.codes[t] = x.codes_of(token + t);
    tokens.scales[t] = x.scales_of(token + t);
    tokens.sums[t] = x.sums_of(token + t);
  }
  Floats parts[kVectors][kTokens][kParts];
  const std::byte* next =
      panel.next + token / kPanelTile * panel.next_lines * kParts * panel.units * 64;
  for (std::size_t q = 0; q < kParts; ++q) {
    Floats sums[kVectors][kTokens];
    for (auto& vector : sums) {
      for (Floats& sum : vector) sum = broadcast(0.0F);
    }
    for (std::size_t unit = 0; unit < panel.valid[q]; ++unit) {
      for (std::size_t i = 0; i < panel.next_lines; ++i, next += 64) __builtin_prefetch(next);
      const std::size_t at = (q * panel.units + unit) * kPanelVectors;
      add_panel_unit<Kind, kVectors, kTokens>(
          panel.codes + at * Kind::kUnitVectors * 4 * kVectorBytes, panel.scales + at * kLanes,
          panel.offsets + at * kLanes, panel.groups[q * panel.units + unit], panel.excess, tokens,
          sums);
    }
    for (std::size_t v = 0; v < kVectors; ++v) {
      for (std::size_t t = 0; t < kTokens; ++t) parts[v][t][q] = sums[v][t];
    }
  }
  for (std::size_t t = 0; t < kTokens; ++t) {
    float* out = y.data + (token + t) * y.row_stride + row;
    for (std::size_t v = 0; v < kVectors; ++v) {
      const Floats sum = add_parts(parts[v][t]);
      const std::size_t left = count - v * kLanes;
      if (left >= kLanes) {
        store(out + v * kLanes, sum);
      } else {
        store_first(out + v * kLanes, sum, left);
      }
    }
  }
}

/// Tokens from `token` on in `tiles` tiles of at most kTokens, as equal as can be; rows in as few
/// vectors as hold them.
template <class Kind, std::size_t kVectors, std::size_t kTokens>
void multiply_panel_tokens(const Panel& panel, const QuantizedActivations& x, std::size_t token,
                           std::size_t tiles, tensor::MatrixView<float> y, std::size_t row,
                           std::size_t count) {
  for (; tiles > 0 && x.tokens - token > (kTokens - 1) * tiles; --tiles) {
    multiply_panel_tile<Kind, kVectors, kTokens>(panel, x, token, y, row, count);
    token += kTokens;
  }
  if constexpr (kTokens > 1) {
    multiply_panel_tokens<Kind, kVectors, kTokens - 1>(panel, x, token, tiles, y, row, count);
  }
}

template <class Kind, std::size_t kVectors = kPanelVectors>
void multiply_panel(const Panel& panel, const QuantizedActivations& x, tensor::MatrixView<float> y,
                    std::size_t row, std::size_t count) {
  if constexpr (kVectors > 1) {
    if (count <= (kVectors - 1) * kLanes) {
      return multiply_panel<Kind, kVectors - 1>(panel, x, y, row, count);
    }
  }
  const std::size_t tiles = (x.tokens + kPanelTile - 1) / kPanelTile;
  multiply_panel_tokens<Kind, kVectors, kPanelTile>(panel, x, 0, tiles, y, row, count);
}

/// Spreads the lines of the next panel over the units of all tiles.
WINNOW_INLINE void aim_prefetch(Panel& panel, const std::byte* next, std::size_t bytes,
                                std::size_t tokens) {
  const std::size_t lines = (bytes + 63) / 64;
  const std::size_t places = (tokens + kPanelTile - 1) / kPanelTile * kParts * panel.units;
  panel.next = next;
  panel.next_lines = (lines + places - 1) / places;
}

/// Panels as equal as can be: with one vector of rows a tile has too few sums to keep the
/// multiplier busy, so 4 vectors are better cut 2 + 2 than 3 + 1.
WINNOW_INLINE std::size_t next_panel_rows(std::size_t rows_left) {
  const std::size_t vectors = (rows_left + kLanes - 1) / kLanes;
  const std::size_t panels = (vectors + kPanelVectors - 1) / kPanelVectors;
  const std::size_t rows = (vectors + panels - 1) / panels * kLanes;
  return rows_left < rows ? rows_left : rows;
}

template <class D>
void multiply_panels(const quant::PackedMatrix& w, std::size_t first_row, std::size_t end_row,
                     const QuantizedActivations& x, tensor::MatrixView<float> y,
                     std::byte* scratch) {
  const Steps<D> steps(w.cols);
  Panel panel = lay_out_panel<D>(steps, w.cols, scratch);
  std::size_t count = 0;
  for (std::size_t row = first_row; row < end_row; row += count) {
    count = next_panel_rows(end_row - row);
    for (std::size_t v = 0; v < kPanelVectors && v * kLanes < count; ++v) {
      const std::size_t left = count - v * kLanes;
      fill_vector<D>(w, row + v * kLanes, left < kLanes ? left : kLanes, v, steps, panel, scratch);
    }
    aim_prefetch(panel, w.row(row + count), kPanelRows * w.row_bytes(), x.tokens);
    using Kind = PanelKind<D::kUnitVectors, D::kHasOffsets, D::kRange>;
    multiply_panel<Kind>(panel, x, y, row, count);
  }
}

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The dot products of a panel (panel.inl) by matrices: a vector holds eight codes of each of two
// rows, which meets eight activations of each of two tokens, for ISAs with vectors of 16 bytes that
// multiply such matrices. The four sums of the product are sorted into lanes once per unit.

static_assert(kParts == 1 && kLanes == 4);

/// From one vector per row to one per pair of rows and half of the codes:
/// the first halves of rows 0 and 1, of rows 2 and 3, then the second halves.
WINNOW_INLINE void arrange_rows(Codes (&rows)[kLanes]) { pair_halves(rows); }

/// Adds the products of one unit to dots, whose lanes are rows. w: [unit vector][half of the
/// codes][pair of rows][panel vector]; x: PanelTokens; group: the unit's first. Where the tokens
/// are odd in number, the last is its own neighbour.
template <class Kind, class Tokens, std::size_t kVectors, std::size_t kTokens>
WINNOW_INLINE void add_unit_dots(const std::byte* w, const Tokens& x, std::size_t group,
                                 Ints (&dots)[kVectors][kTokens]) {
  constexpr std::size_t kGroup = quant::IntegerForm::kGroup;
  constexpr std::size_t kPairs = (kTokens + 1) / 2;
  Ints sums[kVectors][2][kPairs];
  for (auto& vector : sums) {
    for (auto& rows : vector) {
      for (Ints& sum : rows) sum = zero_ints();
    }
  }
  for (std::size_t i = 0; i < Kind::kUnitVectors * 2; ++i) {
    Codes tokens[kPairs];
    for (std::size_t p = 0; p < kPairs; ++p) {
      const std::size_t second = 2 * p + 1 < kTokens ? 2 * p + 1 : 2 * p;
      const std::size_t at = group * kGroup + 8 * i;
      tokens[p] = load_two_halves(x.codes[2 * p] + at, x.codes[second] + at);
    }
    for (std::size_t v = 0; v < kVectors; ++v) {
      for (std::size_t r = 0; r < 2; ++r) {
        const Codes rows = load_codes(w + ((2 * i + r) * kPanelVectors + v) * kVectorBytes);
        for (std::size_t p = 0; p < kPairs; ++p) {
          sums[v][r][p] = add_matrix_product(sums[v][r][p], rows, tokens[p]);
        }
      }
    }
  }
  for (std::size_t v = 0; v < kVectors; ++v) {
    for (std::size_t t = 0; t < kTokens; ++t) {
      const Ints(&rows)[2][kPairs] = sums[v];
      dots[v][t] = add(dots[v][t], t % 2 == 0 ? first_token(rows[0][t / 2], rows[1][t / 2])
                                              : second_token(rows[0][t / 2], rows[1][t / 2]));
    }
  }
}

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The dot products of a panel (panel.inl) by quads: a vector holds one quad of codes of kLanes
// rows, which meets one quad of activations on all lanes.

/// From one vector per row to one per quad of codes, whose lane r is row r's.
WINNOW_INLINE void arrange_rows(Codes (&rows)[kLanes]) { transpose_quads(rows); }

/// Adds the products of one unit to dots, whose lanes are rows. w: [unit vector][quad][panel
/// vector]; x: PanelTokens; group: the unit's first.
template <class Kind, class Tokens, std::size_t kVectors, std::size_t kTokens>
WINNOW_INLINE void add_unit_dots(const std::byte* w, const Tokens& x, std::size_t group,
                                 Ints (&dots)[kVectors][kTokens]) {
  constexpr std::size_t kGroup = quant::IntegerForm::kGroup;
  for (std::size_t i = 0; i < Kind::kUnitVectors * 4; ++i) {
    Codes weights[kVectors];
    for (std::size_t v = 0; v < kVectors; ++v) {
      weights[v] = load_codes(w + (i * kPanelVectors + v) * kVectorBytes);
    }
    for (std::size_t t = 0; t < kTokens; ++t) {
      const Codes quad = broadcast_quad(x.codes[t] + group * kGroup + 4 * i);
      for (std::size_t v = 0; v < kVectors; ++v) {
        dots[v][t] = add_dot<Kind>(dots[v][t], weights[v], quad);
      }
    }
  }
}

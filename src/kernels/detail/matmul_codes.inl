// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// y = W x on int8 activations, written with the words of the ISA whose namespace includes it.
//
// The sum of a row is made in one order, whatever the number of tokens and the range of rows: part
// q of the decoder's vectors (decoders.inl) collects its units one after the other,
//   part_q = fma(scale * dot - offset * sum(x), x_scale, part_q),   dot and sum(x) exact integers,
// and add_parts adds the parts. Two kernels keep to it:
//   few tokens   (direct.inl): four rows at a time straight from the packed layout; limited by the
//                memory's read rate;
//   many tokens  (panel.inl): rows are unpacked once into a panel of codes, interleaved so that a
//                lane is a row; limited by the integer dot product.

template <class D>
struct Steps {
  /// cols is a multiple of 32: a whole number of groups, but perhaps not of steps.
  explicit Steps(std::size_t cols)
      : groups(cols / quant::IntegerForm::kGroup),
        whole(groups / D::kGroups),
        all((groups + D::kGroups - 1) / D::kGroups) {}
  std::size_t units() const { return all * D::kUnits; }

  std::size_t groups;
  std::size_t whole;
  std::size_t all;
};

#include "kernels/detail/direct.inl"
#include "kernels/detail/panel.inl"

/// From this many tokens on, unpacking into a panel costs less than it saves.
template <class D>
void matmul_with(const quant::PackedMatrix& w, std::size_t first_row, std::size_t end_row,
                 const QuantizedActivations& x, tensor::MatrixView<float> y,
                 std::byte* scratch) noexcept {
  if (x.tokens < kPanelTokens) {
    multiply_direct<D>(w, first_row, end_row, x, y, scratch);
  } else {
    multiply_panels<D>(w, first_row, end_row, x, y, scratch);
  }
}

void matmul_codes(const quant::PackedMatrix& w, std::size_t first_row, std::size_t end_row,
                  const QuantizedActivations& x, tensor::MatrixView<float> y,
                  std::byte* scratch) noexcept {
  if (w.codec->has_offsets) {
    matmul_with<UnpackedRows<true>>(w, first_row, end_row, x, y, scratch);
  } else {
    matmul_with<UnpackedRows<false>>(w, first_row, end_row, x, y, scratch);
  }
}

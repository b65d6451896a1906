// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// y = W x on int8 activations, written with the words of the ISA whose namespace includes it.
//
// A tile of kTileRows rows is unpacked into scratch memory once and multiplied with all tokens,
// kTileTokens at a time. Lane l of a sum belongs to the codes 4 l .. 4 l + 3 of each step along
// the row: its integer sum of four products is exact, is scaled by both scales and added in f32.
// So a row's sum is made in the same order whatever tile it is in, and a token's result depends
// on neither its neighbours nor the row range. What limits it at many tokens is the conversion
// and the two f32 operations per step; at one token, the unpacking.

template <std::size_t kRows, std::size_t kTokens>
struct CodeTile {
  quant::IntegerForm rows[kRows];
  const std::int8_t* codes[kTokens];
  const float* scales[kTokens];
  const std::int32_t* sums[kTokens];
};

template <std::size_t kRows, std::size_t kTokens>
using Sums = Floats[kRows][kTokens];

template <typename Step, std::size_t kRows, std::size_t kTokens>
WINNOW_INLINE void add_step(const CodeTile<kRows, kTokens>& tile, std::size_t col,
                            Sums<kRows, kTokens>& sums) {
  Weights weights[kRows];
  Floats scales[kRows];
  for (std::size_t r = 0; r < kRows; ++r) {
    weights[r] = Step::weights(tile.rows[r].codes + col);
    scales[r] = Step::group_scales(tile.rows[r].scales + col / quant::IntegerForm::kGroup);
  }
  for (std::size_t t = 0; t < kTokens; ++t) {
    const Activations x = Step::activations(tile.codes[t] + col);
    const Floats x_scale = Step::block_scales(tile.scales[t] + col / kActivationBlock);
    for (std::size_t r = 0; r < kRows; ++r) {
      sums[r][t] = fma(to_floats(dot_codes(weights[r], x)), mul(scales[r], x_scale), sums[r][t]);
    }
  }
}

/// Subtracts scale * code sum * offset of every group; one lane per group.
template <std::size_t kRows, std::size_t kTokens>
WINNOW_INLINE void subtract_offsets(const CodeTile<kRows, kTokens>& tile, std::size_t groups,
                                    Sums<kRows, kTokens>& sums) {
  for (std::size_t g = 0; g < groups; g += kLanes) {
    const std::size_t n = groups - g < kLanes ? groups - g : kLanes;
    for (std::size_t t = 0; t < kTokens; ++t) {
      const Floats scaled_sums =
          mul(load_doubled_first(tile.scales[t] + g / 2, n), load_ints_first(tile.sums[t] + g, n));
      for (std::size_t r = 0; r < kRows; ++r) {
        sums[r][t] = fnma(scaled_sums, load_first(tile.rows[r].offsets + g, n), sums[r][t]);
      }
    }
  }
}

template <std::size_t kRows, std::size_t kTokens>
void multiply_tile(const quant::IntegerForm* rows, bool has_offsets, const QuantizedActivations& x,
                   std::size_t token, tensor::MatrixView<float> y, std::size_t row) {
  CodeTile<kRows, kTokens> tile;
  for (std::size_t r = 0; r < kRows; ++r) tile.rows[r] = rows[r];
  for (std::size_t t = 0; t < kTokens; ++t) {
    tile.codes[t] = x.codes + (token + t) * x.cols;
    tile.scales[t] = x.scales + (token + t) * (x.cols / kActivationBlock);
    tile.sums[t] = x.sums + (token + t) * (x.cols / kActivationSumGroup);
  }
  Sums<kRows, kTokens> sums;
  for (auto& of_row : sums) {
    for (auto& sum : of_row) sum = broadcast(0.0F);
  }
  std::size_t col = 0;
  for (; col + FullStep::kCodes <= x.cols; col += FullStep::kCodes) {
    add_step<FullStep>(tile, col, sums);
  }
  for (; col < x.cols; col += LastStep::kCodes) add_step<LastStep>(tile, col, sums);
  if (has_offsets) subtract_offsets(tile, x.cols / kActivationSumGroup, sums);
  for (std::size_t t = 0; t < kTokens; ++t) {
    float* out = y.data + (token + t) * y.row_stride + row;
    for (std::size_t r = 0; r < kRows; ++r) out[r] = reduce_add(sums[r][t]);
  }
}

template <std::size_t kRows>
void multiply_rows(const quant::PackedMatrix& w, std::size_t row, const QuantizedActivations& x,
                   tensor::MatrixView<float> y, std::byte* scratch) {
  quant::IntegerForm rows[kRows];
  for (std::size_t r = 0; r < kRows; ++r) {
    rows[r] = detail::integer_row(scratch, w.cols, r);
    w.codec->unpack(w.row(row + r), w.cols / w.codec->block_size, rows[r]);
  }
  std::size_t token = 0;
  for (; token + kTileTokens <= x.tokens; token += kTileTokens) {
    multiply_tile<kRows, kTileTokens>(rows, w.codec->has_offsets, x, token, y, row);
  }
  for (; token < x.tokens; ++token) {
    multiply_tile<kRows, 1>(rows, w.codec->has_offsets, x, token, y, row);
  }
}

void matmul_codes(const quant::PackedMatrix& w, std::size_t first_row, std::size_t end_row,
                  const QuantizedActivations& x, tensor::MatrixView<float> y,
                  std::byte* scratch) noexcept {
  static_assert(kTileRows <= detail::kMaxTileRows);
  std::size_t row = first_row;
  for (; row + kTileRows <= end_row; row += kTileRows) {
    multiply_rows<kTileRows>(w, row, x, y, scratch);
  }
  for (; row < end_row; ++row) multiply_rows<1>(w, row, x, y, scratch);
}

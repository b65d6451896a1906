// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// y = W x for weights that are floats, written with the words of the ISA whose namespace includes
// it. Rows become f32 in scratch memory (F32 rows are used where they are), then a tile of rows
// meets kTileTokens tokens at a time. One f32 sum per lane and the lanes' sum at the end: the
// order does not depend on the tile. Limited by the reading of weights at one token.

/// How a row becomes f32; kGeneric asks the codec.
enum class RowForm { kF32, kF16, kBf16, kGeneric };

inline RowForm row_form(const quant::Codec& codec) {
  if (codec.name == "F32") return RowForm::kF32;
  if (codec.name == "F16") return RowForm::kF16;
  if (codec.name == "BF16") return RowForm::kBf16;
  return RowForm::kGeneric;
}

/// Row `row` as [cols] f32: in `out`, or where it lies.
inline const float* decode_row(RowForm form, const quant::PackedMatrix& w, std::size_t row,
                               float* out) {
  const std::byte* packed = w.row(row);
  const bool aligned = reinterpret_cast<std::uintptr_t>(packed) % alignof(float) == 0;
  if (form == RowForm::kF32 && aligned) return reinterpret_cast<const float*>(packed);
  std::size_t col = 0;
  if (form == RowForm::kF16) {
    for (; col + kLanes <= w.cols; col += kLanes) store(out + col, load_f16(packed + 2 * col));
  } else if (form == RowForm::kBf16) {
    for (; col + kLanes <= w.cols; col += kLanes) store(out + col, load_bf16(packed + 2 * col));
  }
  const quant::Codec& codec = *w.codec;
  const std::size_t first_block = col / codec.block_size;
  codec.decode(packed + first_block * codec.block_bytes, w.cols / codec.block_size - first_block,
               out + col);
  return out;
}

template <std::size_t kRows, std::size_t kTokens>
void multiply_float_tile(const float* const* rows, tensor::MatrixView<const float> x,
                         std::size_t token, tensor::MatrixView<float> y, std::size_t row) {
  Floats sums[kRows][kTokens];
  for (auto& of_row : sums) {
    for (auto& sum : of_row) sum = broadcast(0.0F);
  }
  const float* tokens[kTokens];
  for (std::size_t t = 0; t < kTokens; ++t) tokens[t] = x.data + (token + t) * x.row_stride;
  std::size_t col = 0;
  for (; col + kLanes <= x.cols; col += kLanes) {
    Floats weights[kRows];
    for (std::size_t r = 0; r < kRows; ++r) weights[r] = load(rows[r] + col);
    for (std::size_t t = 0; t < kTokens; ++t) {
      const Floats values = load(tokens[t] + col);
      for (std::size_t r = 0; r < kRows; ++r) sums[r][t] = fma(weights[r], values, sums[r][t]);
    }
  }
  if (const std::size_t rest = x.cols - col; rest != 0) {
    for (std::size_t t = 0; t < kTokens; ++t) {
      const Floats values = load_first(tokens[t] + col, rest);
      for (std::size_t r = 0; r < kRows; ++r) {
        sums[r][t] = fma(load_first(rows[r] + col, rest), values, sums[r][t]);
      }
    }
  }
  for (std::size_t t = 0; t < kTokens; ++t) {
    float* out = y.data + (token + t) * y.row_stride + row;
    for (std::size_t r = 0; r < kRows; ++r) out[r] = reduce_add(sums[r][t]);
  }
}

template <std::size_t kRows>
void multiply_float_rows(RowForm form, const quant::PackedMatrix& w, std::size_t row,
                         tensor::MatrixView<const float> x, tensor::MatrixView<float> y,
                         std::byte* scratch) {
  const float* rows[kRows];
  for (std::size_t r = 0; r < kRows; ++r) {
    rows[r] = decode_row(form, w, row + r, detail::float_row(scratch, w.cols, r));
  }
  std::size_t token = 0;
  for (; token + kTileTokens <= x.rows; token += kTileTokens) {
    multiply_float_tile<kRows, kTileTokens>(rows, x, token, y, row);
  }
  for (; token < x.rows; ++token) multiply_float_tile<kRows, 1>(rows, x, token, y, row);
}

void matmul_floats(const quant::PackedMatrix& w, std::size_t first_row, std::size_t end_row,
                   tensor::MatrixView<const float> x, tensor::MatrixView<float> y,
                   std::byte* scratch) noexcept {
  const RowForm form = row_form(*w.codec);
  std::size_t row = first_row;
  for (; row + kTileRows <= end_row; row += kTileRows) {
    multiply_float_rows<kTileRows>(form, w, row, x, y, scratch);
  }
  for (; row < end_row; ++row) multiply_float_rows<1>(form, w, row, x, y, scratch);
}

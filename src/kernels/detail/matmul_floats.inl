// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// y = W x for weights that are floats, written with the words of the ISA whose namespace includes
// it. Rows become f32 in scratch memory (F32 rows are used where they are), then a tile of rows,
// which stays in the first-level cache, meets kTileTokens tokens at a time. One f32 sum per lane
// and the lanes' sum at the end: the order does not depend on the tile. Many tokens are cut into
// blocks that stay in the second-level cache while all rows pass; rows become f32 again for each.
// Limited by the reading of weights at one token, by multiply-adds at many.

/// Bytes of the activations of a block of tokens. 2048 tokens on one thread of a Zen 5 server with
/// 1 MiB of second-level cache, 576 x 1536 in BF16: 186 Gop/s; 384 KiB gave 181, 256 KiB 179, 128
/// KiB 172 and no blocks 96.
inline constexpr std::size_t kFloatBlockBytes = std::size_t{512} << 10;

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

/// out[r] = the sum of the lanes of sums[r].
template <std::size_t kRows>
WINNOW_INLINE void store_sums(float* out, const Floats (&sums)[kRows]) {
  if constexpr (kRows == 4) {
    store_four(out, reduce_add_four(sums));
  } else {
    for (std::size_t r = 0; r < kRows; ++r) out[r] = reduce_add(sums[r]);
  }
}

template <std::size_t kRows>
WINNOW_INLINE void clear_sums(Floats (&sums)[kRows]) {
  for (Floats& sum : sums) sum = broadcast(0.0F);
}

template <std::size_t kRows>
WINNOW_INLINE void add_float_products(const Floats (&weights)[kRows], Floats values,
                                      Floats (&sums)[kRows]) {
  for (std::size_t r = 0; r < kRows; ++r) sums[r] = fma(weights[r], values, sums[r]);
}

/// Tokens are a list and not a loop, and kRest says whether columns are left over when they are
/// read as vectors: otherwise the compiler writes the sums to memory.
template <std::size_t kRows, bool kRest, std::size_t... kToken>
void multiply_float_tile(const float* const* rows, tensor::MatrixView<const float> x,
                         std::size_t token, tensor::MatrixView<float> y, std::size_t row,
                         std::index_sequence<kToken...>) {
  Floats sums[sizeof...(kToken)][kRows];
  (clear_sums(sums[kToken]), ...);
  const float* const tokens[] = {x.data + (token + kToken) * x.row_stride...};
  Floats weights[kRows];
  std::size_t col = 0;
  for (; col + kLanes <= x.cols; col += kLanes) {
    for (std::size_t r = 0; r < kRows; ++r) weights[r] = held(load(rows[r] + col));
    (add_float_products(weights, held(load(tokens[kToken] + col)), sums[kToken]), ...);
  }
  if constexpr (kRest) {
    const std::size_t rest = x.cols - col;
    for (std::size_t r = 0; r < kRows; ++r) weights[r] = held(load_first(rows[r] + col, rest));
    (add_float_products(weights, held(load_first(tokens[kToken] + col, rest)), sums[kToken]), ...);
  }
  (store_sums(y.data + (token + kToken) * y.row_stride + row, sums[kToken]), ...);
}

template <std::size_t kRows, bool kRest>
void multiply_float_rows(RowForm form, const quant::PackedMatrix& w, std::size_t row,
                         tensor::MatrixView<const float> x, tensor::MatrixView<float> y,
                         std::byte* scratch) {
  const float* rows[kRows];
  for (std::size_t r = 0; r < kRows; ++r) {
    rows[r] = decode_row(form, w, row + r, detail::float_row(scratch, w.cols, r));
  }
  const auto multiply_tokens = [&](std::size_t token, auto tokens) {
    multiply_float_tile<kRows, kRest>(rows, x, token, y, row, tokens);
  };
  std::size_t token = 0;
  for (; token + kTileTokens <= x.rows; token += kTileTokens) {
    multiply_tokens(token, std::make_index_sequence<kTileTokens>{});
  }
  static_assert(kTileTokens == 4);
  const std::size_t rest = x.rows - token;
  if (rest == 3) multiply_tokens(token, std::make_index_sequence<3>{});
  if (rest == 2) multiply_tokens(token, std::make_index_sequence<2>{});
  if (rest == 1) multiply_tokens(token, std::make_index_sequence<1>{});
}

/// All rows for a block of tokens.
template <bool kRest>
void multiply_float_block(const quant::PackedMatrix& w, std::size_t first_row, std::size_t end_row,
                          tensor::MatrixView<const float> x, tensor::MatrixView<float> y,
                          std::byte* scratch) {
  const RowForm form = row_form(*w.codec);
  std::size_t row = first_row;
  for (; row + kTileRows <= end_row; row += kTileRows) {
    multiply_float_rows<kTileRows, kRest>(form, w, row, x, y, scratch);
  }
  for (; row < end_row; ++row) multiply_float_rows<1, kRest>(form, w, row, x, y, scratch);
}

void matmul_floats(const quant::PackedMatrix& w, std::size_t first_row, std::size_t end_row,
                   tensor::MatrixView<const float> x, tensor::MatrixView<float> y,
                   std::byte* scratch) noexcept {
  const std::size_t tile_bytes = kTileTokens * w.cols * sizeof(float);
  const std::size_t block = kTileTokens * (kFloatBlockBytes / (tile_bytes + 1) + 1);
  const auto multiply_block =
      w.cols % kLanes == 0 ? multiply_float_block<false> : multiply_float_block<true>;
  for (std::size_t token = 0; token < x.rows; token += block) {
    const std::size_t tokens = std::min(block, x.rows - token);
    multiply_block(w, first_row, end_row, x.rows_from(token, tokens), y.rows_from(token, tokens),
                   scratch);
  }
}

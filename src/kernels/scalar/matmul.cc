// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Reference for y = W x: the definition that the kernels of every ISA are tested against.
#include "kernels/detail/scratch.h"
#include "kernels/kernels.h"

namespace winnow::kernels::scalar {
namespace {

constexpr std::size_t kGroup = quant::IntegerForm::kGroup;
static_assert(kGroup == kActivationSumGroup);

std::int32_t dot_group(const std::int8_t* a, const std::int8_t* b) {
  std::int32_t sum = 0;  // |sum| <= 16 * 128 * 127: exact in f32 as well
  for (std::size_t j = 0; j < kGroup; ++j) sum += a[j] * b[j];
  return sum;
}

/// sum over groups of sx * (scale * dot(w codes, x codes) - offset * sum(x codes)).
float dot_row(const quant::IntegerForm& w, bool has_offsets, const QuantizedActivations& x,
              std::size_t token) {
  const std::int8_t* codes = x.codes_of(token);
  const float* scales = x.scales_of(token);
  const std::int32_t* sums = x.sums_of(token);
  float y = 0;
  for (std::size_t g = 0; g < x.cols / kGroup; ++g) {
    float term =
        w.scales[g] * static_cast<float>(dot_group(w.codes + g * kGroup, codes + g * kGroup));
    if (has_offsets) term -= w.offsets[g] * static_cast<float>(sums[g]);
    y += scales[g * kGroup / kActivationBlock] * term;
  }
  return y;
}

}  // namespace

void matmul_codes(const quant::PackedMatrix& w, std::size_t first_row, std::size_t end_row,
                  const QuantizedActivations& x, tensor::MatrixView<float> y,
                  std::byte* scratch) noexcept {
  const quant::IntegerForm row = detail::integer_row(scratch, w.cols, 0);
  for (std::size_t r = first_row; r < end_row; ++r) {
    w.codec->unpack(w.row(r), w.cols / w.codec->block_size, row);
    for (std::size_t t = 0; t < x.tokens; ++t) {
      y.row(t)[r] = dot_row(row, w.codec->has_offsets, x, t);
    }
  }
}

void matmul_floats(const quant::PackedMatrix& w, std::size_t first_row, std::size_t end_row,
                   tensor::MatrixView<const float> x, tensor::MatrixView<float> y,
                   std::byte* scratch) noexcept {
  float* row = detail::float_row(scratch, w.cols, 0);
  for (std::size_t r = first_row; r < end_row; ++r) {
    w.codec->decode(w.row(r), w.cols / w.codec->block_size, row);
    for (std::size_t t = 0; t < x.rows; ++t) {
      float sum = 0;
      for (std::size_t j = 0; j < w.cols; ++j) sum += row[j] * x.row(t)[j];
      y.row(t)[r] = sum;
    }
  }
}

}  // namespace winnow::kernels::scalar

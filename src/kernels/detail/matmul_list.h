// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Puts an ISA's products with packed codecs into its table of kernels. What fills the table is
// compiled for the baseline processor, since it runs on every machine.
#pragma once

#include <string_view>

#include "kernels/kernels.h"

namespace winnow::kernels::detail {

struct CodecMatMul {
  std::string_view codec;
  MatMulCodes matmul;
};

inline void add_matmuls(std::span<const CodecMatMul> list, Kernels& table) {
  for (const CodecMatMul& entry : list) {
    table.matmul_of_type.at(quant::find_codec(entry.codec)->ggml_type) = entry.matmul;
  }
}

}  // namespace winnow::kernels::detail

/// Inside the target region: the function of one decoder.
#define WINNOW_MATMUL(type)                                                              \
  void matmul_with_##type(const quant::PackedMatrix& w, std::size_t first_row,           \
                          std::size_t end_row, const QuantizedActivations& x,            \
                          tensor::MatrixView<float> y, std::byte* scratch) noexcept {    \
    matmul_with<type>(w, first_row, end_row, x, y, scratch);                             \
  }

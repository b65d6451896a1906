// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Products with quantised weights: the shared algorithms on this ISA's vocabulary.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/avx2/dot.h"
#include "kernels/avx2/vocabulary.h"
#include "kernels/detail/matmul_list.h"
#include "kernels/detail/scratch.h"
#include "kernels/kernels.h"

WINNOW_BEGIN_TARGET(WINNOW_TARGET_AVX2)
namespace winnow::kernels::avx2 {

#include "kernels/detail/decoders.inl"
#include "kernels/detail/panel_quads.inl"

#include "kernels/detail/matmul_codes.inl"

#define DECODER(type, codec) WINNOW_MATMUL(type)
#include "kernels/detail/decoders/decoders.def"
#undef DECODER

}  // namespace winnow::kernels::avx2
WINNOW_END_TARGET

namespace winnow::kernels::avx2 {

void add_matmuls(Kernels& table) {
  static constexpr detail::CodecMatMul kList[] = {
#define DECODER(type, codec) {codec, matmul_with_##type},
#include "kernels/detail/decoders/decoders.def"
#undef DECODER
  };
  detail::add_matmuls(kList, table);
}

}  // namespace winnow::kernels::avx2

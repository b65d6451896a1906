// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Products with quantised weights: the shared algorithms on this ISA's vocabulary.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/detail/matmul_list.h"
#include "kernels/detail/scratch.h"
#include "kernels/kernels.h"
#include "kernels/neon_dotprod/dot.h"
#include "kernels/neon_i8mm/matrix.h"

WINNOW_BEGIN_TARGET(WINNOW_TARGET_NEON_I8MM)
namespace winnow::kernels::neon_i8mm {

#include "kernels/detail/decoders.inl"
#include "kernels/detail/panel_pairs.inl"

#include "kernels/detail/matmul_codes.inl"

#define DECODER(type, codec) WINNOW_MATMUL(type)
#include "kernels/detail/decoders/decoders.def"
#undef DECODER

}  // namespace winnow::kernels::neon_i8mm
WINNOW_END_TARGET

namespace winnow::kernels::neon_i8mm {

void add_matmuls(Kernels& table) {
  static constexpr detail::CodecMatMul kList[] = {
#define DECODER(type, codec) {codec, matmul_with_##type},
#include "kernels/detail/decoders/decoders.def"
#undef DECODER
  };
  detail::add_matmuls(kList, table);
}

}  // namespace winnow::kernels::neon_i8mm

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// All kernels of this ISA: the shared algorithms on its vocabulary.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#include "kernels/avx2/dot.h"
#include "kernels/avx2/vocabulary.h"
#include "kernels/avx2/vocabulary_attention.h"
#include "kernels/detail/attention_scratch.h"
#include "kernels/detail/scratch.h"
#include "kernels/kernels.h"
#include "tensor/half.h"

WINNOW_BEGIN_TARGET(WINNOW_TARGET_AVX2)
namespace winnow::kernels::avx2 {

#include "kernels/detail/attention.inl"
#include "kernels/detail/columns.inl"
#include "kernels/detail/float_probe.inl"
#include "kernels/detail/gram.inl"
#include "kernels/detail/int8_probe.inl"
#include "kernels/detail/key_values.inl"
#include "kernels/detail/matmul_floats.inl"
#include "kernels/detail/points.inl"
#include "kernels/detail/product.inl"
#include "kernels/detail/quantize.inl"
#include "kernels/detail/read_probe.inl"
#include "kernels/detail/rounding.inl"
#include "kernels/detail/vectors.inl"

}  // namespace winnow::kernels::avx2
WINNOW_END_TARGET

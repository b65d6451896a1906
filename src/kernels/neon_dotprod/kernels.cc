// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// All kernels of this ISA: the shared algorithms on its vocabulary.
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#include "kernels/detail/attention_scratch.h"
#include "kernels/detail/scratch.h"
#include "kernels/kernels.h"
#include "kernels/neon_dotprod/dot.h"
#include "kernels/neon_dotprod/vocabulary.h"
#include "kernels/neon_dotprod/vocabulary_attention.h"
#include "tensor/half.h"

WINNOW_BEGIN_TARGET(WINNOW_TARGET_NEON_DOTPROD)
namespace winnow::kernels::neon_dotprod {

#include "kernels/detail/attention.inl"
#include "kernels/detail/float_probe.inl"
#include "kernels/detail/int8_probe.inl"
#include "kernels/detail/key_values.inl"
#include "kernels/detail/matmul_floats.inl"
#include "kernels/detail/quantize.inl"
#include "kernels/detail/read_probe.inl"
#include "kernels/detail/vectors.inl"

}  // namespace winnow::kernels::neon_dotprod
WINNOW_END_TARGET

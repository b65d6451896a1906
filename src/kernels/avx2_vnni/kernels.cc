// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The kernels besides products with weights that this ISA improves.
#include <cstddef>
#include <cstdint>

#include "kernels/avx2_vnni/dot.h"
#include "kernels/kernels.h"

WINNOW_BEGIN_TARGET(WINNOW_TARGET_AVX2_VNNI)
namespace winnow::kernels::avx2_vnni {

#include "kernels/detail/int8_probe.inl"

}  // namespace winnow::kernels::avx2_vnni
WINNOW_END_TARGET

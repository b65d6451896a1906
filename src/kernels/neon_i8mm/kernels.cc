// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The kernels besides products with weights that this ISA improves.
#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"
#include "kernels/neon_i8mm/matrix.h"

WINNOW_BEGIN_TARGET(WINNOW_TARGET_NEON_I8MM)
namespace winnow::kernels::neon_i8mm {

#include "kernels/detail/int8_probe.inl"

}  // namespace winnow::kernels::neon_i8mm
WINNOW_END_TARGET

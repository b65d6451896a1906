// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Puts the kernels that table.def lists into a table of kernels.
#include <type_traits>

#include "kernels/kernels.h"

namespace winnow::kernels::neon_dotprod {

#define KERNEL(name) std::remove_pointer_t<decltype(Kernels::name)> name;
#include "kernels/neon_dotprod/table.def"
#undef KERNEL

void add_matmuls(Kernels& table);

void improve(Kernels& table) {
#define KERNEL(name) table.name = name;
#include "kernels/neon_dotprod/table.def"
#undef KERNEL
  add_matmuls(table);
}

}  // namespace winnow::kernels::neon_dotprod

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Sizes of pages of memory.
#pragma once

#include <cstddef>

namespace winnow::os {

inline constexpr std::size_t kPage = 4096;
inline constexpr std::size_t kHugePage = std::size_t{2} << 20;

}  // namespace winnow::os

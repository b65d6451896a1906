// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Small fields of four packed rows, put together in general registers: the vector units have enough
// to do with the codes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/detail/target.h"

namespace winnow::kernels::detail {

template <typename T>
WINNOW_INLINE T load_as(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

/// The 16-bit words at rows[0..3] + offset, the first lowest.
WINNOW_INLINE std::uint64_t four_halves(const std::byte* const (&rows)[4], std::size_t offset) {
  std::uint64_t four = 0;
  for (std::size_t e = 0; e < 4; ++e) {
    four |= std::uint64_t{load_as<std::uint16_t>(rows[e] + offset)} << (16 * e);
  }
  return four;
}

/// The bytes at rows[0..3] + offset, the first lowest.
WINNOW_INLINE std::uint32_t four_bytes(const std::byte* const (&rows)[4], std::size_t offset) {
  std::uint32_t four = 0;
  for (std::size_t e = 0; e < 4; ++e) {
    four |= static_cast<std::uint32_t>(rows[e][offset]) << (8 * e);
  }
  return four;
}

}  // namespace winnow::kernels::detail

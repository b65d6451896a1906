// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The order of 2-bit fields in Q2_K, Q3_K and Q6_K: 64 bytes for 256 weights. Each half of the
// super-block has 32 bytes; byte l of a half holds weights l, l + 32, l + 64, l + 96 of it, the
// first in the lowest bits.
#pragma once

#include "quant/block_bits.h"

namespace winnow::quant {

/// Adds the fields to codes[256], shifted left by `code_shift`.
inline void unpack_two_bit_planes(const std::byte* bytes, std::uint8_t* codes,
                                  unsigned code_shift = 0) {
  for (unsigned plane = 0; plane < 8; ++plane) {
    unpack_bits(bytes + 32 * (plane / 4), 32, 2 * (plane % 4), 2, codes + 32 * plane, code_shift);
  }
}

/// The inverse, into 64 zeroed bytes: bits [code_shift, code_shift + 2) of each code.
inline void pack_two_bit_planes(const std::uint8_t* codes, std::byte* bytes,
                                unsigned code_shift = 0) {
  for (unsigned plane = 0; plane < 8; ++plane) {
    pack_bits(codes + 32 * plane, 32, 2 * (plane % 4), 2, bytes + 32 * (plane / 4), code_shift);
  }
}

}  // namespace winnow::quant

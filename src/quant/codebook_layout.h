// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Parts that the layouts of the IQ2 and IQ3 types share: fields of signs, nibbles of odd integers,
// and groups of codes that are one point.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "quant/block_bits.h"
#include "quant/codebook.h"
#include "quant/codebook_points.inl"
#include "quant/codebook_search.h"

namespace winnow::quant {

using Iq2XxsBook = CodebookTables<8, kIq2XxsMagnitudes, kIq2XxsPoints>;
using Iq2XsBook = CodebookTables<8, kIq2XsMagnitudes, kIq2XsPoints>;
using Iq2SBook = CodebookTables<8, kIq2SMagnitudes, kIq2SPoints>;
using Iq3XxsBook = CodebookTables<4, kIq3XxsMagnitudes, kIq3XxsPoints>;
using Iq3SBook = CodebookTables<4, kIq3SMagnitudes, kIq3SPoints>;

inline std::uint32_t load_u32(const std::byte* p) {
  return load_u16(p) | (static_cast<std::uint32_t>(load_u16(p + 2)) << 16);
}

inline void store_u32(std::uint32_t value, std::byte* p) {
  store_u16(static_cast<std::uint16_t>(value & 0xffffU), p);
  store_u16(static_cast<std::uint16_t>(value >> 16), p + 2);
}

/// Eight sign bits from the lower seven: the number of minus signs is even.
inline unsigned even_signs(unsigned seven) {
  return seven | ((static_cast<unsigned>(std::popcount(seven)) & 1U) << 7);
}

/// A point with the signs of its weights, one bit each, the lowest first.
template <class Book>
void unpack_point(std::size_t point, unsigned signs, std::int8_t* codes) {
  for (std::size_t i = 0; i < Book::kGroup; ++i) {
    const std::int8_t value = Book::kVectors[point][i];
    codes[i] = static_cast<std::int8_t>((signs >> i) & 1U ? -value : value);
  }
}

/// The bits of the signs of codes[kSignGroup].
template <class Book>
unsigned signs_of(const std::uint8_t* codes) {
  unsigned signs = 0;
  for (unsigned i = 0; i < kSignGroup; ++i) {
    signs |= static_cast<unsigned>(Book::is_negative(codes[i])) << i;
  }
  return signs;
}

/// Four bits s for the integer 2 s + 1.
inline unsigned stored_integer(std::int8_t integer) { return static_cast<unsigned>(integer) / 2; }

/// Scales of count sub-blocks from nibbles, the lower one first; `step` is that of integer 1.
inline float odd_scale(const std::byte* nibbles, std::size_t k, float step) {
  const unsigned stored = (std::to_integer<unsigned>(nibbles[k / 2]) >> (4 * (k % 2))) & 15U;
  return step * static_cast<float>(2 * stored + 1);
}

/// The inverse, into zeroed bytes.
inline void store_odd_scale(std::int8_t integer, std::byte* nibbles, std::size_t k) {
  nibbles[k / 2] |= static_cast<std::byte>(stored_integer(integer) << (4 * (k % 2)));
}

}  // namespace winnow::quant

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How packed rows become vectors of codes: one decoder per layout, written with the words of the
// ISA whose namespace includes it.
//
// A vector of codes has kParts parts of 16. A decoder goes along a row in steps; a step has kUnits
// units; a unit is kUnitVectors vectors whose part q (16 codes each, neighbours in the row) shares
// one scale: the unit's weights of part q are groups group(unit, q) ... + kUnitVectors - 1 of the
// step, a group being 16 weights. The parts need not follow each other in the row: every decoder
// takes the order in which its layout unpacks with the fewest operations, and the activations are
// put into that order instead.

inline constexpr std::size_t kVectorBytes = kParts * 16;

/// What the vectors of a decoder hold.
enum class CodeRange {
  kSmall,   ///< code + kRaise, in [0, kLargest], kLargest <= 127
  kSigned,  ///< the code itself, in [-128, 127]
};

/// The largest sum of products in a lane is 4 * kUnitVectors * kLargest * 127.
template <class D>
WINNOW_INLINE Ints sum_parts_of(const Ints (&rows)[4]) {
  constexpr std::int32_t kLane = 4 * static_cast<std::int32_t>(D::kUnitVectors) * D::kLargest * 127;
  if constexpr (kLane >= 1 << 15) {
    return sum_parts(rows);
  } else {
    return sum_small_parts<(2 * kLane < 1 << 15)>(rows);
  }
}

/// The weights' products are too large by this many times the activations.
template <class D>
inline constexpr std::int32_t kExcess = D::kRange == CodeRange::kSigned ? kSignedRaise : D::kRaise;

template <class D>
WINNOW_INLINE Codes ready(Codes codes) {
  if constexpr (D::kRange == CodeRange::kSigned) return raise_signed(codes);
  return codes;
}
template <class D>
WINNOW_INLINE Ints add_dot(Ints sum, Codes w, Codes x) {
  if constexpr (D::kRange == CodeRange::kSigned) return add_dot_raised(sum, w, x);
  return add_dot_small(sum, w, x);
}

/// Scales of all units from one signed byte per scale and row, in the order of the row:
/// out = scale * (byte - bias). A byte serves kGroupsPerByte groups.
template <class D, std::size_t kGroupsPerByte, std::size_t kUnit, std::size_t... kPart>
WINNOW_INLINE Floats unit_bytes(const Bytes16 (&quads)[4], std::index_sequence<kPart...>) {
  return floats_of_groups<(D::group(kUnit, kPart) / kGroupsPerByte)...>(quads);
}
template <class D, std::size_t kGroupsPerByte, std::size_t... kUnit>
WINNOW_INLINE void all_unit_bytes(const Bytes16 (&quads)[4], Floats (&out)[D::kUnits],
                                  std::index_sequence<kUnit...>) {
  ((out[kUnit] = unit_bytes<D, kGroupsPerByte, kUnit>(quads, std::make_index_sequence<kParts>{})),
   ...);
}
/// `quads[k]` holds bytes 4 k to 4 k + 3 of each row, as interleave_rows makes it.
template <class D, std::size_t kGroupsPerByte>
WINNOW_INLINE void super_block_scales(const Bytes16 (&quads)[4], Floats scale, float bias,
                                      Floats (&out)[D::kUnits]) {
  all_unit_bytes<D, kGroupsPerByte>(quads, out, std::make_index_sequence<D::kUnits>{});
  for (Floats& unit : out) {
    if (bias != 0) unit = sub(unit, broadcast(bias));
    unit = mul(unit, scale);
  }
}

/// Rows as they lie in memory. Blocks::kBytes are the bytes of a step, and a row may end within
/// one: the rest of it is then taken as zeros.
template <class Blocks>
struct PackedDecoder : Blocks {
  using Cursor = const std::byte*;
  static constexpr std::size_t kStepBytes = Blocks::kBytes;

  WINNOW_INLINE static Cursor open(const quant::PackedMatrix& w, std::size_t row,
                                   std::byte* /*scratch*/, std::size_t /*slot*/) {
    return w.row(row);
  }
  WINNOW_INLINE static Cursor at(Cursor row, std::size_t step) { return row + step * kStepBytes; }
  /// Asks for the lines of a step that lies `ahead` bytes further on.
  WINNOW_INLINE static void prefetch(Cursor at, std::size_t ahead) {
    for (std::size_t i = 0; i < kStepBytes; i += 64) __builtin_prefetch(at + ahead + i);
  }
  /// A whole step that begins with the `bytes` bytes at `from`.
  WINNOW_INLINE static Cursor pad(Cursor from, std::size_t bytes, std::byte (&room)[kStepBytes]) {
    std::memset(room, 0, sizeof room);
    std::memcpy(room, from, bytes);
    return room;
  }
};

/// Rows that the codec has unpacked into scratch memory, for codecs without a decoder of their own.
template <bool kWithOffsets>
struct UnpackedRows {
  struct Cursor {
    const std::int8_t* codes;
    const float* scales;
    const float* offsets;
  };
  static constexpr std::size_t kStepBytes = 1;  // nothing is ever padded here: rows are, in scratch
  static constexpr std::size_t kGroups = kParts;
  static constexpr std::size_t kUnits = 1;
  static constexpr std::size_t kUnitVectors = 1;
  static constexpr CodeRange kRange = CodeRange::kSigned;
  static constexpr std::int32_t kRaise = 0;
  static constexpr std::int32_t kLargest = 255;
  static constexpr bool kHasOffsets = kWithOffsets;
  static constexpr std::size_t group(std::size_t /*unit*/, std::size_t part) { return part; }

  static Cursor open(const quant::PackedMatrix& w, std::size_t row, std::byte* scratch,
                     std::size_t slot) {
    const quant::IntegerForm form = detail::integer_row(scratch, w.cols, slot);
    w.codec->unpack(w.row(row), w.cols / w.codec->block_size, form);
    const std::size_t groups = w.cols / quant::IntegerForm::kGroup;
    const std::size_t padded = (groups + kParts - 1) / kParts * kParts;
    std::fill(form.codes + w.cols, form.codes + padded * quant::IntegerForm::kGroup, 0);
    std::fill(form.scales + groups, form.scales + padded, 0.0F);
    if (kWithOffsets) std::fill(form.offsets + groups, form.offsets + padded, 0.0F);
    return {form.codes, form.scales, form.offsets};
  }
  WINNOW_INLINE static Cursor at(Cursor row, std::size_t step) {
    return {row.codes + step * kParts * 16, row.scales + step * kParts,
            row.offsets + step * kParts};
  }
  WINNOW_INLINE static void prefetch(const Cursor& /*at*/, std::size_t /*ahead*/) {}
  WINNOW_INLINE static Cursor pad(Cursor from, std::size_t /*bytes*/, std::byte (&/*room*/)[1]) {
    return from;
  }
  template <std::size_t kUnit>
  WINNOW_INLINE static void codes(const Cursor& cursor, Codes (&out)[kUnitVectors]) {
    out[0] = load_codes(cursor.codes);
  }
  WINNOW_INLINE static void scales(const Cursor (&rows)[4], Floats (&scales)[kUnits],
                                   Floats (&offsets)[kUnits]) {
    scales[0] = floats_of_rows({rows[0].scales, rows[1].scales, rows[2].scales, rows[3].scales});
    if constexpr (kWithOffsets) {
      offsets[0] =
          floats_of_rows({rows[0].offsets, rows[1].offsets, rows[2].offsets, rows[3].offsets});
    }
  }
};

#include "kernels/detail/decoders/min_super_block.inl"
#include "kernels/detail/decoders/nibble_block.inl"
#include "kernels/detail/decoders/q6_k.inl"
#include "kernels/detail/decoders/q8_0.inl"
#include "kernels/detail/decoders/table_block.inl"
#include "kernels/detail/decoders/two_bit_planes.inl"

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Weight codecs: how a row of weights is packed into bytes. One file per codec under codecs/, one
// line in codecs/registry.def; nothing outside `quant` and `kernels` asks which codec it handles.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/units.h"
#include "tensor/shape.h"

namespace winnow::quant {

/// The integer form of a run of weights, for kernels that multiply int8 codes:
/// w_j = scale[j / kGroup] * code[j] - offset[j / kGroup].
/// A codec whose scales cover 32 or more weights repeats them.
struct IntegerForm {
  static constexpr std::size_t kGroup = 16;
  std::int8_t* codes;  ///< [weights]
  float* scales;       ///< [weights / kGroup]
  float* offsets;      ///< [weights / kGroup]; not written when the codec has no offsets
};

struct BlockGrid;

/// One packed layout. Immutable, one object for the whole program (see `find_codec`).
/// All functions work on whole blocks, are reentrant, and neither allocate nor throw.
struct Codec {
  std::string_view name;      ///< as GGUF tools write it: "Q4_K"
  std::uint32_t ggml_type;    ///< number of the type in a GGUF tensor directory
  std::uint32_t file_type;    ///< `general.file_type` of a GGUF file that is mostly this type
  std::uint32_t block_size;   ///< weights per block
  std::uint32_t block_bytes;  ///< bytes per block
  /// Codec to use for rows whose length is no multiple of block_size; "" when there is none.
  /// The same choice as llama.cpp makes, so that files of one recipe have equal bytes.
  std::string_view fallback;

  /// blocks: [num_blocks * block_bytes], out: [num_blocks * block_size]. Exact by definition.
  void (*decode)(const std::byte* blocks, std::size_t num_blocks, float* out) noexcept;
  /// Packs num_blocks * block_size weights of one row. `importance`, when not null, has one
  /// non-negative finite weight for each of them (the mean square of that input column); the
  /// encoder minimises the squared error weighted with it, otherwise the plain one. Finite weights
  /// only (the caller has checked); the decoded result is finite too.
  void (*encode)(const float* weights, std::size_t num_blocks, const float* importance,
                 std::byte* out) noexcept;

  /// Null for float codecs, which have no integer form.
  void (*unpack)(const std::byte* blocks, std::size_t num_blocks, IntegerForm out) noexcept;
  bool has_offsets;  ///< whether `unpack` writes offsets

  /// What the blocks can express; null for float codecs.
  const BlockGrid* grid = nullptr;

  bool is_float() const { return unpack == nullptr; }
  double bits_per_weight() const { return 8.0 * block_bytes / block_size; }
};

/// All codecs, in the order of registry.def.
std::span<const Codec* const> all_codecs();
/// By name, ignoring case; null when there is none.
const Codec* find_codec(std::string_view name);
/// By GGUF type number; null when there is none.
const Codec* find_codec_by_ggml_type(std::uint32_t ggml_type);
/// Names of all codecs, separated by blanks, for messages and help.
std::string codec_names();

/// Follows fallbacks until a codec's block divides `row_length`. Throws Error{kInternal} if a
/// chain ends without one (every chain ends in F16 or F32, whose block is 1).
const Codec& codec_for_row(const Codec& wanted, std::uint64_t row_length);

/// Bytes of a tensor of this shape, or nothing on overflow or when rows do not divide into blocks.
std::optional<Bytes> packed_size(const Codec& codec, const tensor::Shape& shape);

/// A borrowed packed matrix [rows, cols], rows adjacent: row r begins at data + r * row_bytes().
struct PackedMatrix {
  const Codec* codec = nullptr;
  const std::byte* data = nullptr;
  std::size_t rows = 0;  ///< out_features
  std::size_t cols = 0;  ///< in_features, a multiple of codec->block_size

  std::size_t row_bytes() const { return cols / codec->block_size * codec->block_bytes; }
  const std::byte* row(std::size_t r) const { return data + r * row_bytes(); }
  Bytes bytes() const { return {rows * row_bytes()}; }
};

}  // namespace winnow::quant

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How keys and values are kept between tokens, and what an attention kernel is given to work on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace winnow::kernels {

/// What a key or value element is kept as. Attention computes in f32 with the values they stand
/// for, so the type changes the rounding of what is stored and nothing else.
enum class KvType : std::uint8_t {
  kF32,
  kF16,
  kQ8_0,  ///< int8 codes; 32 elements along head_dim share an f16 scale, as in the codec Q8_0
};

/// "f32", "f16", "q8_0".
std::string_view to_string(KvType type);
std::optional<KvType> parse_kv_type(std::string_view name);
std::vector<KvType> all_kv_types();

/// Where the elements of one head are. Positions go in strips of 16, one strip after the other:
/// the keys of a strip are transposed, [head_dim][16 positions], so that a vector holds one element
/// of many keys and a score needs no sum across lanes; its values are rows, [16 positions]
/// [padded_dim]. In kQ8_0 the f16 scales follow the codes of the strip, [blocks][16] for keys and
/// [16][blocks] for values. Elements beyond head_dim may hold anything.
struct KvLayout {
  static constexpr std::size_t kStrip = 16;  ///< positions
  static constexpr std::size_t kBlock = 32;  ///< elements along head_dim with one scale

  KvType type = KvType::kF32;
  std::size_t head_dim = 0;

  std::size_t padded_dim() const { return (head_dim + kStrip - 1) / kStrip * kStrip; }
  std::size_t blocks() const { return (head_dim + kBlock - 1) / kBlock; }
  std::size_t element_bytes() const {
    return type == KvType::kF32 ? 4 : type == KvType::kF16 ? 2 : 1;
  }
  /// Bytes of the keys, or of the values, of one strip.
  std::size_t strip_bytes() const {
    return scales_offset() + (type == KvType::kQ8_0 ? kStrip * blocks() * 2 : 0);
  }
  std::size_t scales_offset() const { return kStrip * padded_dim() * element_bytes(); }

  // Indices of elements and of scales within a strip; `lane` is the position within it.
  static std::size_t key_index(std::size_t lane, std::size_t d) { return d * kStrip + lane; }
  static std::size_t key_scale_index(std::size_t lane, std::size_t d) {
    return d / kBlock * kStrip + lane;
  }
  std::size_t value_index(std::size_t lane, std::size_t d) const { return lane * padded_dim() + d; }
  std::size_t value_scale_index(std::size_t lane, std::size_t d) const {
    return lane * blocks() + d / kBlock;
  }
};

/// Queries, tokens times group, that share the conversion of a key when one task brings them.
inline constexpr std::size_t kAttentionRows = 64;

/// Causal attention of some queries of one sequence that share one head of keys and values.
struct AttentionTask {
  KvLayout layout;
  const std::byte* keys = nullptr;      ///< strips of positions 0 ..., all that are visible
  const std::byte* values = nullptr;    ///< the same
  const std::byte* upcoming = nullptr;  ///< keys that the thread may read next; null when unknown
  const float* queries = nullptr;       ///< [tokens][group, head_dim], tokens `token_stride` apart
  float* out = nullptr;                 ///< the same shape and stride; overwritten
  std::size_t token_stride = 0;         ///< in floats
  std::size_t tokens = 0;
  std::size_t group = 0;    ///< query heads
  std::size_t visible = 0;  ///< positions the first token sees, at least 1; each next one more
  float scale = 0;          ///< of scores, usually 1 / sqrt(head_dim)
};

/// Bytes of scratch memory that one thread needs for an AttentionTask.
std::size_t attention_scratch_bytes(std::size_t head_dim);

}  // namespace winnow::kernels

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/kv_cache.h"

#include "base/checked.h"
#include "base/error.h"

namespace winnow::engine {

KvCache::KvCache(const model::ModelSpec& spec, std::size_t capacity, kernels::KvType type)
    : KvCache(spec, 0, spec.num_hidden_layers, capacity, type) {}

KvCache::KvCache(const model::ModelSpec& spec, LayerId layer, std::size_t capacity,
                 kernels::KvType type)
    : KvCache(spec, index(layer), 1, capacity, type) {}

KvCache::KvCache(const model::ModelSpec& spec, std::uint32_t first, std::uint32_t count,
                 std::size_t capacity, kernels::KvType type)
    : layout_{type, spec.head_dim},
      heads_(spec.num_key_value_heads),
      first_layer_(first),
      num_layers_(count),
      capacity_(capacity) {
  WINNOW_CHECK(capacity >= 1 && capacity <= spec.max_position_embeddings);
  const std::size_t strips = (capacity + kernels::KvLayout::kStrip - 1) / kernels::KvLayout::kStrip;
  const auto head_bytes = checked_mul(std::uint64_t{layout_.strip_bytes()}, strips);
  const auto bytes =
      head_bytes ? checked_mul(*head_bytes, std::uint64_t{2} * num_layers_ * heads_) : std::nullopt;
  if (!bytes) fail(ErrorCode::kSystem, "a context of {} positions needs too much memory", capacity);
  head_bytes_ = *head_bytes;
  buffer_ = os::AlignedBuffer(*bytes);
}

void KvCache::truncate(std::size_t length) {
  WINNOW_CHECK(length <= length_);
  length_ = length;
}

void KvCache::advance(std::size_t tokens) {
  WINNOW_CHECK(tokens <= capacity_ - length_);
  length_ += tokens;
}

std::byte* KvCache::at(LayerId layer, std::size_t which, std::size_t head) {
  WINNOW_DCHECK(index(layer) >= first_layer_ && index(layer) - first_layer_ < num_layers_);
  const std::size_t block =
      ((index(layer) - first_layer_) * std::size_t{2} + which) * heads_ + head;
  return buffer_.data() + block * head_bytes_;
}

std::uint64_t kv_bytes_per_position(const model::ModelSpec& spec, kernels::KvType type) {
  const kernels::KvLayout layout{type, spec.head_dim};
  return std::uint64_t{2} * spec.num_hidden_layers * spec.num_key_value_heads *
         (layout.strip_bytes() / kernels::KvLayout::kStrip);
}

}  // namespace winnow::engine

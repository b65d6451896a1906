// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/kv_cache.h"

#include <optional>

#include "base/checked.h"
#include "base/error.h"

namespace winnow::engine {
namespace {

std::optional<std::uint64_t> head_bytes(const kernels::KvLayout& layout, std::size_t capacity) {
  const std::size_t strips = (capacity + kernels::KvLayout::kStrip - 1) / kernels::KvLayout::kStrip;
  return checked_mul(std::uint64_t{layout.strip_bytes()}, strips);
}

}  // namespace

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
  buffer_ = os::AlignedBuffer(kv_cache_memory(spec, count, capacity, type).value);
  head_bytes_ = head_bytes(layout_, capacity).value();
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

Bytes kv_cache_memory(const model::ModelSpec& spec, std::uint32_t layers, std::size_t capacity,
                      kernels::KvType type) {
  const auto head = head_bytes({type, spec.head_dim}, capacity);
  const auto bytes =
      head ? checked_mul(*head, std::uint64_t{2} * layers * spec.num_key_value_heads) : head;
  if (!bytes) fail(ErrorCode::kSystem, "a context of {} positions needs too much memory", capacity);
  return {*bytes};
}

std::uint64_t kv_bytes_per_position(const model::ModelSpec& spec, kernels::KvType type) {
  const kernels::KvLayout layout{type, spec.head_dim};
  return std::uint64_t{2} * spec.num_hidden_layers * spec.num_key_value_heads *
         (layout.strip_bytes() / kernels::KvLayout::kStrip);
}

}  // namespace winnow::engine

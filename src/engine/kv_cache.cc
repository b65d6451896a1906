// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/kv_cache.h"

#include "base/checked.h"
#include "base/error.h"

namespace winnow::engine {

KvCache::KvCache(const model::ModelSpec& spec, std::size_t capacity)
    : heads_(spec.num_key_value_heads), head_dim_(spec.head_dim), capacity_(capacity) {
  WINNOW_CHECK(capacity >= 1 && capacity <= spec.max_position_embeddings);
  const auto floats =
      checked_mul(std::uint64_t{2} * spec.num_hidden_layers * heads_ * head_dim_, capacity);
  const auto bytes = floats ? checked_mul(*floats, sizeof(float)) : std::nullopt;
  if (!bytes) fail(ErrorCode::kSystem, "a context of {} positions needs too much memory", capacity);
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

float* KvCache::at(LayerId layer, std::size_t which, std::size_t head) {
  const std::size_t block = (index(layer) * std::size_t{2} + which) * heads_ + head;
  return reinterpret_cast<float*>(buffer_.data()) + block * capacity_ * head_dim_;
}

}  // namespace winnow::engine

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "kernels/key_values.h"

#include <array>

#include "kernels/detail/attention_scratch.h"

namespace winnow::kernels {
namespace {

constexpr std::array<std::string_view, 3> kNames = {"f32", "f16", "q8_0"};

}  // namespace

std::string_view to_string(KvType type) { return kNames[static_cast<std::size_t>(type)]; }

std::optional<KvType> parse_kv_type(std::string_view name) {
  for (const KvType type : all_kv_types()) {
    if (to_string(type) == name) return type;
  }
  return std::nullopt;
}

std::vector<KvType> all_kv_types() {
  std::vector<KvType> types;
  for (std::size_t i = 0; i < kNames.size(); ++i) types.push_back(static_cast<KvType>(i));
  return types;
}

std::size_t attention_scratch_bytes(std::size_t head_dim) {
  return detail::AttentionScratch::bytes({KvType::kF32, head_dim});
}

}  // namespace winnow::kernels

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/catalogue.h"

#include <algorithm>
#include <variant>

namespace winnow::experts {

std::optional<ExpertKey> owner_of(const ExpertCatalogue& catalogue, ExpertKey key) {
  const ExpertSource& source = catalogue[index(key.layer)][index(key.expert)];
  if (std::holds_alternative<ExpertLocation>(source)) return key;
  const auto* const shared = std::get_if<SharedSource>(&source);
  if (shared == nullptr) return std::nullopt;
  return ExpertKey{key.layer, shared->owner};
}

ExpertForm form_without_bytes(const ExpertCatalogue& catalogue, ExpertKey key) {
  const ExpertSource& source = catalogue[index(key.layer)][index(key.expert)];
  if (std::holds_alternative<ZeroExpert>(source)) return ZeroExpert{};
  if (std::holds_alternative<IdentityExpert>(source)) return IdentityExpert{};
  return ConstantExpert{std::get<ConstantSource>(source).values};
}

Bytes constant_bytes(const ExpertCatalogue& catalogue) {
  std::uint64_t bytes = 0;
  for (const auto& layer : catalogue) {
    for (const ExpertSource& source : layer) {
      const auto* const constant = std::get_if<ConstantSource>(&source);
      if (constant != nullptr) bytes += constant->values.size() * sizeof(float);
    }
  }
  return {bytes};
}

CacheShape shape_of(const ExpertCatalogue& catalogue, std::size_t top_k) {
  CacheShape shape;
  shape.num_layers = static_cast<std::uint32_t>(catalogue.size());
  shape.top_k = static_cast<std::uint32_t>(top_k);
  for (const auto& layer : catalogue) {
    shape.num_experts = std::max(shape.num_experts, static_cast<std::uint32_t>(layer.size()));
  }
  return shape;
}

}  // namespace winnow::experts

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/hessian_collector.h"

#include <utility>
#include <vector>

#include "compress/moments.h"

namespace winnow::compress {

Hessian& HessianCollector::sums_of(const Key& key, std::size_t size) {
  return sums_.try_emplace(key, size).first->second;
}

void HessianCollector::on_input(engine::Site site, LayerId layer,
                                tensor::MatrixView<const float> x) {
  if (!wanted_(site, layer, ExpertId{})) return;
  sums_of({site, index(layer), 0}, x.cols).add(x, {}, pool_);
}

void HessianCollector::on_expert_input(engine::Site site, LayerId layer, ExpertId expert,
                                       tensor::MatrixView<const float> x,
                                       std::span<const float> weights) {
  if (!wanted_(site, layer, expert)) return;
  std::vector<float> squares(weights.begin(), weights.end());
  for (float& w : squares) w *= w;
  sums_of({site, index(layer), index(expert)}, x.cols).add(x, squares, pool_);
}

const Hessian* HessianCollector::find(model::Role role, LayerId layer, ExpertId expert) const {
  const model::RoleTraits& traits = model::traits(role);
  const auto found = sums_.find(
      {site_of(role), traits.per_layer ? index(layer) : 0, traits.per_expert ? index(expert) : 0});
  return found == sums_.end() ? nullptr : &found->second;
}

Hessian HessianCollector::layer_sum(model::Role role, LayerId layer, std::size_t size) const {
  Hessian total(size);
  const std::uint32_t wanted_layer = model::traits(role).per_layer ? index(layer) : 0;
  for (const auto& [key, sums] : sums_) {  // ordered by expert within a site and layer
    const auto& [site, key_layer, expert] = key;
    if (site == site_of(role) && key_layer == wanted_layer) total.add(sums);
  }
  return total;
}

}  // namespace winnow::compress

// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/hessian_collector.h"

#include <utility>
#include <vector>

#include "base/error.h"
#include "compress/moments.h"

namespace winnow::compress {

void HessianCollector::add(const Key& key, tensor::MatrixView<const float> x,
                           std::span<const float> weights) {
  Hessian& sums = sums_.try_emplace(key, x.cols).first->second;
  with_context(fmt::format("layer {}", std::get<1>(key)),
               [&] { sums.add(x, weights, pool_, kernels_); });
}

void HessianCollector::on_input(engine::Site site, LayerId layer,
                                tensor::MatrixView<const float> x) {
  if (!wanted_(site, layer, ExpertId{})) return;
  add({site, index(layer), 0}, x, {});
}

void HessianCollector::on_expert_input(engine::Site site, LayerId layer, ExpertId expert,
                                       tensor::MatrixView<const float> x,
                                       std::span<const float> weights) {
  if (!wanted_(site, layer, expert)) return;
  std::vector<float> squares(weights.begin(), weights.end());
  for (float& w : squares) w *= w;
  const std::uint32_t part = experts_ == Experts::kEach ? index(expert) : 0;
  add({site, index(layer), part}, x, squares);
}

const Hessian* HessianCollector::find(engine::Site site, LayerId layer, ExpertId expert) const {
  const auto found = sums_.find({site, index(layer), index(expert)});
  return found == sums_.end() ? nullptr : &found->second;
}

const Hessian* HessianCollector::find(model::Role role, LayerId layer, ExpertId expert) const {
  const model::RoleTraits& traits = model::traits(role);
  return find(site_of(role), traits.per_layer ? layer : LayerId{},
              traits.per_expert ? expert : ExpertId{});
}

void HessianCollector::add_experts(engine::Site site, LayerId layer, Hessian& total) const {
  for (const auto& [key, sums] : sums_) {  // ordered by expert within a site and layer
    const auto& [key_site, key_layer, expert] = key;
    if (key_site == site && key_layer == index(layer)) total.add(sums);
  }
}

Hessian HessianCollector::layer_sum(engine::Site site, LayerId layer, std::size_t size) const {
  Hessian total(size);
  add_experts(site, layer, total);
  return total;
}

Hessian HessianCollector::layer_sum(model::Role role, LayerId layer, std::size_t size) const {
  return layer_sum(site_of(role), model::traits(role).per_layer ? layer : LayerId{}, size);
}

}  // namespace winnow::compress

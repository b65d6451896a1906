// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/resident_keys.h"

#include "base/error.h"

namespace winnow::experts {

ResidentKeys::ResidentKeys(const CacheShape& shape)
    : shape_(shape), layers_(shape.num_layers), place_(shape.num_keys(), kNowhere) {}

void ResidentKeys::insert(ExpertKey key) {
  WINNOW_CHECK(!contains(key));
  auto& layer = layers_[index(key.layer)];
  place_[shape_.number(key)] = layer.size();
  layer.push_back(key.expert);
}

void ResidentKeys::erase(ExpertKey key) {
  WINNOW_CHECK(contains(key));
  auto& layer = layers_[index(key.layer)];
  const std::size_t place = place_[shape_.number(key)];
  layer[place] = layer.back();
  place_[shape_.number({key.layer, layer[place]})] = place;
  layer.pop_back();
  place_[shape_.number(key)] = kNowhere;
}

}  // namespace winnow::experts
